"""Recipes of `reconstruct` against each other: a few blocks of a student, the perplexity of text that was held back.

    python bench/reconstruct_recipes.py --teacher T.gguf --text valid.txt --first 0 --blocks 3 \
        "name=default" "name=plain loss=plain" "name=old absorb=0 order=together loss=plain importance=none lr=1e-3"

Each recipe is a list of NAME=VALUE of `BlockFit`'s options (and of `kind`, `optimiser` and `column`). The blocks in front of
the first one, and those behind the last, are the teacher's. One line of JSON for each recipe; the first tokens of the text are
fitted on, the last ones are held back.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onebit_distill.data.teacher import load_teacher  # noqa: E402
from onebit_distill.model.starts import student_of  # noqa: E402
from onebit_distill.system.memory import keep_memory  # noqa: E402
from onebit_distill.training.block_check import MixedCheck  # noqa: E402
from onebit_distill.training.block_fit import BlockFit  # noqa: E402
from onebit_distill.training.reconstruct import Reconstruction  # noqa: E402
from onebit_distill.training.run_folder import sign_options  # noqa: E402
from onebit_distill.training.settings import Settings  # noqa: E402
from onebit_distill.training.trainer import DTYPES  # noqa: E402

#: held back, in sequences twice as long as those that blocks are fitted on
HELD_TOKENS = 8192


def read_recipe(text: str, base: Settings) -> tuple[str, BlockFit, Settings]:
    """Name, options and settings of one recipe."""
    given = dict(part.split("=", 1) for part in text.split())
    name, column = given.pop("name", text), given.pop("column", "0") == "1"
    kinds = {item.name: {"int": int, "float": float, "str": str}[item.type] for item in fields(BlockFit)}
    options = BlockFit(**{key: kinds[key](given.pop(key)) for key in list(given) if key in kinds})
    return name, options, replace(base, column=column, **given)


def try_recipe(teacher, calibration, held, first: int, blocks: int, options: BlockFit, settings: Settings) -> dict:
    """calibration: int64 [N, T]; held: int64 [n, T']. Perplexity behind each block, errors and seconds."""
    torch.manual_seed(settings.seed)
    student = student_of(teacher, settings.kind, None, sign_options(settings))
    check = MixedCheck(teacher, student, held.numpy(), settings, held.device, tokens=held.numel())
    with tempfile.TemporaryDirectory() as folder:
        work = Reconstruction(teacher, student, calibration, Path(folder), options, settings)
        theirs = teacher.embed(calibration).detach().to(DTYPES[settings.precision])
        for index in range(first):
            theirs = work.passed(teacher.model.layers[index], theirs)
            check.behind(index, teacher.model.layers[index], wanted=False)
        mine, found = theirs, {"perplexity": [], "errors": [], "seconds": 0.0}
        for index in range(first, first + blocks):
            theirs = work.passed(teacher.model.layers[index], theirs)
            chosen = replace(options, absorb=0) if index == first else options
            report = work.fitter(student.model.layers[index], index, mine, theirs, chosen).fit()
            mine = work.passed(student.model.layers[index], mine)
            found["perplexity"].append(round(check.behind(index, student.model.layers[index]), 2))
            found["errors"].append({name: round(value, 4) for name, value in report.errors.items()})
            found["seconds"] += report.seconds
    return {**found, "seconds": round(found["seconds"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--first", type=int, default=0, help="first block that gets signs")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=160)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("recipes", nargs="+", metavar="'NAME=VALUE …'")
    given = parser.parse_args()
    keep_memory()
    torch.set_num_threads(given.threads)
    loaded = load_teacher(given.teacher, torch.bfloat16, "cpu", None)
    ids = torch.tensor(loaded.encode(given.text.read_text(encoding="utf-8")))
    count, held = given.sequences * given.length, ids[-HELD_TOKENS:].view(-1, 2 * given.length)
    calibration = ids[:count].view(given.sequences, given.length)
    if count + held.numel() > len(ids):
        sys.exit(f"{given.text} has {len(ids)} tokens, {count + held.numel()} are needed")
    for text in given.recipes:
        name, options, settings = read_recipe(text, Settings(precision="bf16", block=given.length))
        started = time.perf_counter()
        found = try_recipe(loaded.model, calibration, held, given.first, given.blocks, options, settings)
        print(json.dumps({"recipe": name, **found, "all_seconds": round(time.perf_counter() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
