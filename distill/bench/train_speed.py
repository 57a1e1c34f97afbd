"""How fast `train` is: tokens per second, memory and the system's share of the time, of one checkout or of several.

    python bench/train_speed.py --package . --package ../../old/distill --rounds 3 --steps 6 -- \\
        --teacher T.gguf --data texts.txt --optimiser muon --batch 8 --micro-batch 8

What stands behind `--` are options of `train`; each run gets an empty folder, and `--log-every 1`. Packages take turns, so
that what else the machine does meets all of them. Of each run the first step, in which buffers are made, is left out, and
the median of the others counts; of the rounds again the median. CPU seconds tell more than the clock where others use the
machine, with `OMP_NUM_THREADS=1`: threads that wait for each other count. Losses are compared step by step with those of
the first package.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

#: runs in a process of its own with the package in question: `train`, with the clocks read after every step
_RUN = """
import json, os, sys, time
from onebit_distill import cli
from onebit_distill.training.trainer import Trainer

clocks, step = [], Trainer._step

def timed(self):
    if not clocks:
        clocks.append((time.perf_counter(), *os.times()[:2]))
    step(self)
    clocks.append((time.perf_counter(), *os.times()[:2]))

Trainer._step = timed
status = cli.main(sys.argv[2:])
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
except ImportError:  # Windows
    peak = 0
with open(sys.argv[1], "w") as file:
    json.dump({"clocks": clocks, "peak_bytes": peak}, file)
sys.exit(status)
"""


def run(package: Path, steps: int, options: list[str]) -> dict:
    """Tokens per second, peak bytes, share of system time and losses of one run."""
    with tempfile.TemporaryDirectory() as folder:
        out, result = Path(folder, "run"), Path(folder, "result.json")
        argv = ["train", *options, "--out", str(out), "--steps", str(steps), "--log-every", "1"]
        environment = {**os.environ, "PYTHONPATH": str(package.resolve())}
        command = [sys.executable, "-c", _RUN, str(result), *argv]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{package}: {done.stderr[-2000:]}")
        found = json.loads(result.read_text())
        entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    entries = [entry for entry in entries if "loss" in entry]
    tokens = entries[-1]["tokens"] / entries[-1]["step"]
    clocks = found["clocks"][1:]
    seconds = [later[0] - before[0] for before, later in zip(clocks, clocks[1:])]
    user, system = (clocks[-1][i] - clocks[0][i] for i in (1, 2))
    return {
        "tokens_per_s": tokens / statistics.median(seconds),
        "peak_gb": found["peak_bytes"] / 1e9,
        "system": system / (user + system),
        "cpu_s": (user + system) / (len(clocks) - 1),
        "losses": [entry["loss"] for entry in entries],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, action="append", help="folder with onebit_distill; default: this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps a run, at least 2")
    parser.add_argument("options", nargs="+", help="options of `train`, behind --")
    arguments = parser.parse_args()
    packages = arguments.package or [Path(__file__).resolve().parents[1]]
    rounds: dict[Path, list[dict]] = {package: [] for package in packages}
    for number in range(arguments.rounds):
        for package in packages:
            rounds[package].append(run(package, arguments.steps, arguments.options))
            latest = rounds[package][-1]
            print(f"round {number + 1}, {package}: {latest['tokens_per_s']:.0f} tokens/s", file=sys.stderr, flush=True)
    first = rounds[packages[0]][0]["losses"]
    print("| package | tokens/s | CPU s a step | system time | peak memory, GB | largest difference of a loss |")
    print("|---|---:|---:|---:|---:|---:|")
    keys = ("tokens_per_s", "cpu_s", "system", "peak_gb")
    for package, runs in rounds.items():
        speed, cpu, system, peak = (statistics.median(r[key] for r in runs) for key in keys)
        gap = max(abs(a - b) for r in runs for a, b in zip(r["losses"], first))
        print(f"| {package} | {speed:.0f} | {cpu:.1f} | {system:.0%} | {peak:.2f} | {gap:.1e} |")


if __name__ == "__main__":
    main()
