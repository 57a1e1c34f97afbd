"""Stands in for `onebit perplexity` and `onebit eval`: what they print, and failures on demand (FAKE_… in the environment)."""

import json
import os
import sys
import time
from pathlib import Path


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def perplexity(model: Path) -> dict:
    bits = 1 + sum(model.stem.encode()) % 7
    return {
        "perplexity": 10.0 * bits, "nll": 2.3, "ctx": int(option("--ctx")), "chunks": 3, "tokens": 400, "seconds": 0.1,
        "isa": "scalar", "activations": "int8",
    }  # fmt: skip


def tasks() -> dict:
    limit, both = int(option("--limit")), ("hellaswag", "arc_easy", "arc_challenge", "piqa")
    found = {}
    for index, name in enumerate(option("--tasks").split(",")):
        score = {"value": 0.3 + 0.05 * index, "stderr": 0.01 * (1 + index)}
        found[name] = {"questions": limit, "acc": score, "seconds": 0.1, "computed": limit}
        if name in both:
            found[name]["acc_norm"] = {"value": score["value"] + 0.1, "stderr": score["stderr"]}
    return found


def main() -> None:
    command = sys.argv[1]
    if command == "--version":
        print("0.1.0")
        return
    model = Path(sys.argv[2])
    with open(os.environ["FAKE_CALLS"], "a") as file:
        file.write(f"{command} {model.stem}\n")
    header = model.read_bytes()[:200]
    if b'"format":"obt"' not in header:
        print("onebit: ERR_UNKNOWN_FORMAT: it is no .obt file", file=sys.stderr)
        sys.exit(1)
    if model.stem in os.environ.get("FAKE_REFUSES", "").split():
        print("onebit: ERR_TENSOR: a tensor is missing", file=sys.stderr)
        sys.exit(1)
    if "FAKE_HANGS" in os.environ:
        with open(os.environ["FAKE_HANGS"], "w") as pipe:  # open for as long as this process lives
            print("here", file=pipe, flush=True)
            time.sleep(600)
    if command == "perplexity":
        print(json.dumps(perplexity(model)))
    else:
        print(json.dumps([{"model": str(model), "average": 0.5, "tasks": tasks()}]))


main()
