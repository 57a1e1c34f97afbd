"""`baselines`: the paper's comparisons on one small model, as one command that can be stopped at any time.

Every finished run is a file in `results/`, named by its settings: the same command does only what is missing, a changed
configuration file only what is new, and a kill loses at most the last steps of one run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data.blocks import Blocks
from ...data.generate import generate
from ...data.teacher import Teacher, load_teacher
from ...errors import DistillError
from ...model.llama import Llama, LlamaOutput
from ...system.atomic_file import writing_atomically
from ...system.clock import clock
from ...system.processes import World, world
from ...training.losses import Transfer
from ...training.metrics import read_metrics
from ...training.settings import Settings
from ...training.trainer import Trainer
from ...training.transfer import TransferJob, prepare_texts
from ..bits import bits_per_weight
from .book import Book
from .measure import (
    Validation,
    make_student,
    measure_rounding,
    measure_starts,
    plain_rank_one_errors,
    score,
)
from .plan import Row, Study, all_rows, read_study
from .report import write_report
from .results import Result, Results, Scores


class RememberingTeacher:
    """The teacher of many runs that meet the same batches: what it said to one of them is kept, up to a limit."""

    _MOST_BYTES = 1 << 30

    def __init__(self, model: Llama) -> None:
        self.model, self.bytes = model, 0
        self.said: dict[bytes, LlamaOutput] = {}

    @property
    def head_weight(self) -> Tensor:
        return self.model.head_weight

    def __call__(
        self, ids: Tensor, hidden_states: bool = False, attentions: bool = False, logits: str = "all"
    ) -> LlamaOutput:
        if attentions:
            return self.model(ids, hidden_states=hidden_states, attentions=True, logits=logits)
        key = ids.numpy().tobytes()
        found = self.said.get(key)
        if found is None:
            found = self.model(ids, hidden_states=True, logits="none")
            size = sum(tensor.nbytes for tensor in found.hidden_states)
            if self.bytes + size <= self._MOST_BYTES:
                self.said[key] = found
                self.bytes += size
        return replace(found, logits=self.model.head(found.state)) if logits == "all" else found


@dataclass
class Material:
    """What all runs share."""

    teacher: Teacher
    remembering: RememberingTeacher
    blocks: Blocks
    validation: Validation

    def blocks_for(self, settings: Settings) -> Blocks:
        shared = self.blocks
        return Blocks(shared.store, shared.chosen, settings.block, settings.packing, settings.seed)


def prepare_material(
    study: Study, teacher: Teacher, data: Sequence[Path], validation: Sequence[Path], out: Path, here: World
) -> Material:
    """Raises DistillError: those of the data, and ERR_RUN_DIFFERS when `out` was begun with other material."""
    if not data:
        generate(teacher, study.generate, out / "generated", here)
        data = [out / "generated"]
    job = TransferJob(teacher.source, data, out, validation)
    blocks, held_out, digest = prepare_texts(job, teacher, study.paper, here)
    described = {"teacher": teacher.sha256, "data": digest, "validation": _digest(held_out)}
    path = out / "material.json"
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as cause:
            raise DistillError("ERR_RESULT", f"{path} cannot be read ({cause})", "Use another --out.") from cause
        differing = next((name for name, value in described.items() if before.get(name) != value), None)
        if differing is not None:
            raise DistillError("ERR_RUN_DIFFERS", f"{out} was begun with other {differing}", "Use another --out.")
    with writing_atomically(path) as file:
        file.write(json.dumps(described).encode())
    remembering = RememberingTeacher(teacher.model)
    return Material(teacher, remembering, blocks, Validation.of(teacher.model, held_out))


def _digest(blocks: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(blocks)).hexdigest()


def _curve(metrics: Path, settings: Settings) -> list[float]:
    """The logits loss of every step in nats a token, whatever the recipe's own scale."""
    scale = settings.logits_weight * (settings.block if settings.logits_loss == "batchmean" else 1)
    entries = read_metrics(metrics) if metrics.exists() and scale > 0 else []
    return [round(entry["logits"] / scale, 5) for entry in entries if "logits" in entry]


def run_row(row: Row, material: Material, folder: Path, here: World, label: str) -> Result:
    """Trains one student in `folder`, from where it was interrupted. Raises DistillError ERR_INTERRUPTED and others;
    a loss that is no number is a result."""
    settings = row.settings
    torch.manual_seed(settings.seed)
    student = make_student(material.teacher.model, settings)
    objective = Transfer(material.remembering, settings)
    nothing = material.validation.blocks[:0]
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(student, objective, material.blocks_for(settings), nothing, settings, folder, here, label)
    begun, started, failure, scores = trainer.progress.step, time.process_time(), None, None
    try:
        result = trainer.train()
        if result.stopped:
            raise DistillError("ERR_INTERRUPTED", f"stopped in: {row.label}", "The same command goes on from there.")
        scores = score(student, material.validation)
    except DistillError as error:
        if error.code != "ERR_NAN_LOSS":
            raise
        failure = error.message
    # an interrupted run has left its first steps' time with another process
    share = trainer.progress.step / max(1, trainer.progress.step - begun)
    seconds = (time.process_time() - started) * share
    curve = _curve(folder / "metrics.jsonl", settings)
    return Result(row.label, settings.to_dict(), scores, failure, curve, bits_per_weight(student), seconds)


class _Clock:
    """Guesses the computing time that is left from the runs that are done. Time means CPU time throughout: other
    programs on the machine do not change it."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0

    def add(self, result: Result) -> None:
        self.seconds += result.cpu_seconds
        self.steps += len(result.curve)

    def left(self, rows: Sequence[Row]) -> float:
        return sum(row.settings.steps for row in rows) * self.seconds / max(1, self.steps)


def run_all(study: Study, material: Material, out: Path, here: World) -> dict[str, Result]:
    """Every run that is not there yet; all results by key."""
    results, rows, watch = Results(out / "results"), all_rows(study), _Clock()
    found = {row.key: results.result(row) for row in rows}
    missing = [row for row in rows if found[row.key] is None]
    for result in found.values():
        if result is not None:
            watch.add(result)
    if len(missing) < len(rows):
        print(f"baselines: going on, {len(rows) - len(missing)} of {len(rows)} runs are there", file=sys.stderr)
    for index, row in enumerate(missing):
        number = len(rows) - len(missing) + index + 1
        folder = out / f"running-{row.key}"
        label = f"baselines {number}/{len(rows)} {row.label}"
        result = run_row(row, material, folder, here, label)
        results.write(row.key, asdict(result))
        shutil.rmtree(folder, ignore_errors=True)
        found[row.key] = result
        watch.add(result)
        said = f"perplexity {result.scores.perplexity:.3f}" if result.scores else result.failure
        left = clock(watch.left(missing[index + 1 :]))
        print(f"{label}, seed {row.settings.seed}: {said}  {left} of computing left", file=sys.stderr, flush=True)
    return {key: result for key, result in found.items() if result is not None}


def run_baselines(
    teacher_path: str,
    tokenizer: Path | None,
    data: Sequence[Path],
    validation: Sequence[Path],
    out: Path,
    config: Path,
    report: Path,
    command: str,
) -> None:
    """The whole of `baselines`: text, measurements, runs, report. Raises DistillError."""
    study = read_study(config)
    with world("cpu") as here:  # models this small gain nothing on a GPU
        if here.size > 1:
            raise DistillError("ERR_BAD_OPTION", "baselines runs in one process", "Run it without torchrun.")
        if study.paper.threads:
            torch.set_num_threads(study.paper.threads)
        teacher = load_teacher(teacher_path, tokenizer=tokenizer)
        results = Results(out / "results")
        material = prepare_material(study, teacher, data, validation, out, here)
        model, text = teacher.model, material.validation
        measured = {
            "teacher_scores": Scores(
                **results.once(f"teacher-of-{len(text.blocks)}", lambda: asdict(score(model, text)))
            ),
            "rounding": {k: Scores(**v) for k, v in measure_rounding(study, model, text, results).items()},
            "starts": measure_starts(study, model, text, results),
            "rank_one_errors": plain_rank_one_errors(model),
        }
        # kept from the first call, which made the texts
        measuring = results.once("measuring", lambda: {"cpu_seconds": time.process_time()})
        runs = run_all(study, material, out, here)
        book = Book(
            study=study,
            runs=runs,
            teacher=teacher,
            **measured,
            validation_tokens=text.blocks.size,
            training_tokens=int(material.blocks.store.lengths()[material.blocks.chosen].sum()),
            other_cpu_seconds=measuring["cpu_seconds"],
            command=command,
        )
        write_report(book, report)
        print(f"baselines: {report}", file=sys.stderr)
