"""`generate`: who writes a teacher's texts, this project's engine or PyTorch, and that it goes on with whoever began."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ..errors import DistillError
from ..system.processes import World
from .beginnings import Beginnings, read_beginnings
from .engine import TextEngine, engine_can, open_engine, recorded_engine
from .generate import GenerateOptions, generate
from .teacher import Teacher, load_teacher


def choose_engine(
    asked: str, folder: Path, options: GenerateOptions, world: World, dtype: torch.dtype, graph: bool
) -> tuple[str, bool]:
    """Who writes, onebit or torch, and whether it must be that one: asked for by name, or begun so in this folder.

    Raises DistillError ERR_BAD_OPTION when the engine is asked for together with what only PyTorch has.
    """
    torch_only = [
        name
        for name, wanted in (
            ("--graph", graph),
            ("--precision", dtype != torch.float32),
            (f"--temperature {options.temperature}", not engine_can(options)),
        )
        if wanted
    ]
    if asked == "onebit" and torch_only:
        raise DistillError("ERR_BAD_OPTION", f"{torch_only[0]} is for --engine torch")
    if asked != "auto":
        return asked, True
    begun = recorded_engine(folder)
    if begun in ("onebit", "torch"):
        return begun, True
    return "torch" if torch_only or world.device.type != "cpu" else "onebit", False


def _started(stack: ExitStack, must: bool, world: World, start) -> TextEngine | None:
    """The engine, in every process or in none; None when it could not be had and need not be."""
    problem, engine = None, None
    try:
        engine = stack.enter_context(start())
    except DistillError as error:
        problem = error
    if not world.any(problem is not None):
        return engine
    stack.close()
    problem = problem or DistillError("ERR_ENGINE", "the engine did not start in another process")
    if must or problem.code != "ERR_ENGINE":
        raise problem
    if world.is_first:
        print(f"generate: PyTorch writes the texts: {problem.message}", file=sys.stderr)
    return None


def write_texts(
    teacher: str | os.PathLike,
    options: GenerateOptions,
    folder: Path,
    world: World,
    *,
    tokenizer: str | os.PathLike | None = None,
    dtype: torch.dtype = torch.float32,
    graph: bool = False,
    engine: str = "auto",
    activations: str = "int8",
    texts: Sequence[Path] = (),
) -> int:
    """The whole of `generate`; returns the tokens made. dtype, graph: of PyTorch; activations: of the engine; texts: what
    sequences begin with where first = texts.

    Raises DistillError: those of the teacher, of `generate`, and ERR_ENGINE when the engine must write and cannot.
    """
    def beginnings(known: Teacher) -> Beginnings | None:
        return read_beginnings(texts, known, options.begin_tokens) if texts else None

    who, must = choose_engine(engine, folder, options, world, dtype, graph)
    if who == "onebit":
        with ExitStack() as stack:
            known = load_teacher(teacher, tokenizer=tokenizer, weights=False)
            started = _started(stack, must, world, lambda: open_engine(teacher, options, known.eos_ids, activations))
            if started is not None:
                return generate(known, options, folder, world, engine=started, texts=beginnings(known))
    known = load_teacher(teacher, dtype, str(world.device), tokenizer)
    return generate(known, options, folder, world, graph, texts=beginnings(known))
