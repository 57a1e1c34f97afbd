"""`real-model`: the paper's table on one real model, as one command that can be stopped at any time.

A row that is done is a file in RUN/rows and a model in RUN/models; the same command makes what is missing, tries again what
failed, and goes on within a row where it was.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...data.teacher import file_identity, load_teacher
from ...errors import DistillError
from ...system.atomic_file import file_error
from ..kept import Kept
from .make import Material, make
from .measure import CONTEXT, Engine
from .plan import Row, chosen_rows
from .report import write_report
from .results import Made, RowResult, Rows, Table

#: end the command, not only the row: what others would meet too, or a person has asked for
_ENDING = ("ERR_INTERRUPTED", "ERR_DISK_FULL", "ERR_READ_ONLY")


def _say(text: str) -> None:
    print(f"real-model: {text}", file=sys.stderr, flush=True)


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and sizes in a folder. Raises DistillError ERR_FILE_NOT_FOUND and others."""
    try:
        if path.is_dir():
            listed = [f"{file.name} {file.stat().st_size}" for file in sorted(path.iterdir())]
            return hashlib.sha256("\n".join(listed).encode()).hexdigest()
        return file_identity(path)["sha256"]
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause


def whole_command(command: str) -> str:
    """A command as it makes all rows: --rows with its names left out."""
    words, kept, is_row = shlex.split(command), [], False
    for word in words:
        is_row = word == "--rows" or (is_row and not word.startswith("--"))
        if not is_row:
            kept.append(word)
    return shlex.join(kept)


def _by_option(described: dict[str, Any]) -> dict[str, Any]:
    """With the plan's options in its place, to be compared one by one."""
    return {**{name: value for name, value in described.items() if name != "plan"}, **described.get("plan", {})}


def open_study(material: Material, text: Path, tasks: Path) -> dict[str, Any]:
    """RUN/study.json: what all rows share. Raises DistillError ERR_RUN_DIFFERS when it was begun with something else,
    and those of files that are missing."""
    shapes = load_teacher(material.teacher_path, tokenizer=material.tokenizer, weights=False)
    described = {
        "teacher": Path(material.teacher_path).name,
        "teacher_sha256": shapes.sha256,
        "parameters": sum(parameter.numel() for parameter in shapes.model.parameters()),
        "context": min(CONTEXT, shapes.config.context_length),
        "data": [path.name for path in material.data],
        "data_sha256": [_digest(path) for path in material.data],
        "validation": [path.name for path in material.validation],
        "validation_sha256": [_digest(path) for path in material.validation],
        "perplexity_file": text.name,
        "perplexity_sha256": _digest(text),
        "tasks_sha256": _digest(tasks),
        "plan": material.plan.to_dict(),
    }
    kept = Kept(material.out)
    before = kept.read("study")
    if before is not None:
        found = _by_option(before)
        for name, value in _by_option(described).items():
            if found.get(name) != value:
                message = f"{material.out} was begun with another {name}"
                raise DistillError("ERR_RUN_DIFFERS", message, "Use the same options to go on, or another --out.")
    described["command"] = whole_command(material.command)
    kept.write("study", described)
    return described


def _made(material: Material, row: Row) -> Made:
    """The row's file, made now or by a call that ended before it was measured."""
    kept = Kept(material.folder(row))
    before = kept.read("made")
    if before is not None and material.model_path(row).exists():
        return Made(**before)
    # answers of another model would be refused
    shutil.rmtree(material.folder(row) / "eval", ignore_errors=True)
    made = make(material, row)
    kept.write("made", asdict(made))
    return made


def do_row(material: Material, row: Row, engine: Engine, text: Path, tasks: Path, context: int) -> RowResult:
    """Makes and measures a row. Raises DistillError."""
    made = _made(material, row)
    path = material.model_path(row)
    perplexity = engine.perplexity(path, text, context)
    _say(f"{row.name}: perplexity {perplexity['perplexity']:.3f}")
    scores = engine.tasks(path, tasks, material.plan.limit, material.folder(row) / "eval")
    return RowResult(row.name, made, perplexity, scores)


def _failed(row: Row, problem: Exception) -> RowResult:
    if isinstance(problem, DistillError):
        return RowResult(row.name, failure={"code": problem.code, "message": problem.message})
    traceback.print_exception(problem)
    return RowResult(row.name, failure={"code": "ERR_ROW", "message": f"{type(problem).__name__}: {problem}"})


def run_rows(
    material: Material, rows: Sequence[Row], engine: Engine, text: Path, tasks: Path, context: int, report: Path | None
) -> list[RowResult]:
    """Every row that is not done; those that failed now. A report, if any, is written anew behind each row."""
    kept, failed = Rows(material.out / "rows"), []
    for number, row in enumerate(rows, 1):
        before = kept.result(row)
        if before is not None and before.is_done:
            _say(f"{row.name} is there ({number}/{len(rows)})")
            continue
        _say(f"{row.name} ({number}/{len(rows)}): {row.label}")
        try:
            result = do_row(material, row, engine, text, tasks, context)
            _say(f"{row.name}: average {100 * result.average:.2f} %")
        except DistillError as error:
            if error.code in _ENDING:
                raise
            result = _failed(row, error)
        except Exception as error:  # one row's fault must not cost the night's others
            result = _failed(row, error)
        if result.failure is not None:
            failed.append(result)
            _say(f"{row.name} failed: {result.failure['code']}: {result.failure['message']}")
        kept.keep(result)
        if report is not None:
            write_report(Table.read(material.out), report)
    return failed


def run_real_model(
    material: Material, names: Sequence[str] | None, engine: str | None, text: Path, tasks: Path, report: Path | None
) -> None:
    """The whole command. names: of rows; None: all; none at all: only the report is written.

    Raises DistillError: ERR_BAD_OPTION for names that are no rows, ERR_ENGINE without an engine, ERR_FILE_NOT_FOUND,
    ERR_RUN_DIFFERS, and ERR_ROW behind everything else when rows failed.
    """
    rows = chosen_rows(names)
    if not rows:
        if report is None:
            raise DistillError("ERR_BAD_OPTION", "--rows without a name makes nothing", "Add --report, or name rows.")
        write_report(Table.read(material.out), report)
        return
    if material.threads < 0:
        raise DistillError("ERR_BAD_OPTION", f"threads must be 0 (all) or more, found {material.threads}")
    if not tasks.is_dir():
        raise DistillError("ERR_FILE_NOT_FOUND", f"{tasks}: no such folder", "--tasks-data is the folder of the tasks.")
    found = Engine.find(engine, material.threads)
    context = open_study(material, text, tasks)["context"]
    if material.threads:
        torch.set_num_threads(material.threads)
    failed = run_rows(material, rows, found, text, tasks, context, report)
    if report is not None:
        write_report(Table.read(material.out), report)
        _say(str(report))
    if failed:
        told = ", ".join(result.name for result in failed)
        raise DistillError("ERR_ROW", f"{len(failed)} of {len(rows)} rows failed: {told}", "The same command tries again.")
