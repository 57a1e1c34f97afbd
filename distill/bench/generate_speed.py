"""`python bench/generate_speed.py TEACHER`: tokens a second of `onebit_distill generate` by PyTorch and by the engine, side by side.

Both write the same orders (first tokens enumerated, top-k 50) with --batch sequences at once, one after the other, --rounds
times; texts end at end tokens, so the two write about as many tokens, not exactly. Wall time, and CPU time of the process
that computes: on a machine that others use too, --threads 1 with CPU time is what means something. Loading is not counted.
"""

import argparse
import os
import time
from pathlib import Path

import torch

from onebit_distill.data.engine import open_engine
from onebit_distill.data.generate import GenerateOptions, generate_sequences, order_texts
from onebit_distill.data.teacher import load_teacher


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writers", default="int8,torch", help="of torch, int8, f32; default int8,torch")
    return parser.parse_args()


def cpu_seconds_of(process: int) -> float:
    """User and system time of a running process (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(writer: str, given: argparse.Namespace, options: GenerateOptions, teacher) -> tuple[int, float, float]:
    """(tokens, seconds, CPU seconds)"""
    wanted = range(options.sequences)
    if writer == "torch":
        wall, cpu = time.monotonic(), time.process_time()
        tokens = sum(len(ids) for _, ids in generate_sequences(teacher, options, wanted))
        return tokens, time.monotonic() - wall, time.process_time() - cpu
    with open_engine(given.teacher, options, teacher.eos_ids, writer, given.threads) as engine:
        wall, cpu = time.monotonic(), cpu_seconds_of(engine.process_id)
        tokens = sum(len(ids) for _, ids in engine.texts(order_texts(teacher, options, wanted), options.batch))
        return tokens, time.monotonic() - wall, cpu_seconds_of(engine.process_id) - cpu


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    options = GenerateOptions(sequences=given.sequences, length=given.length, batch=given.batch)
    teacher = load_teacher(given.teacher, weights="torch" in given.writers)
    for _ in range(given.rounds):
        for writer in given.writers.split(","):
            tokens, seconds, cpu = run(writer, given, options, teacher)
            speeds = f"{tokens / seconds:.0f} tokens/s, {tokens / cpu:.0f} a CPU second"
            print(f"{writer}, {given.length} tokens, {given.batch} at once: {tokens} tokens, {speeds}", flush=True)


main()
