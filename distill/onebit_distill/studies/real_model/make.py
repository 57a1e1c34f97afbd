"""How each row's model is made: the teacher and texts in, a `.obt` file out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.blocks import blocks_for
from ...data.teacher import Teacher, load_teacher
from ...errors import DistillError
from ...export.run import export_run
from ...export.student import as_stored, export_model
from ...model.linear import Dense
from ...model.llama import Block, Llama
from ...model.starts import signed_linears, student_of
from ...system.atomic_file import file_error
from ...system.clock import clock
from ...system.machine import describe_machine
from ...system.processes import World, multiplied_in
from ...training.block_fit import BlockFit
from ...training.metrics import read_metrics
from ...training.reconstruct import run_reconstruction
from ...training.run_folder import load_student
from ...training.settings import Settings
from ...training.time_budget import EvenShares, TimeBudget, kept_seconds
from ...training.transfer import TransferJob, prepare_texts, run_transfer
from ..bits import bits_per_weight
from ..post_training.blocks import Calibration, quantise_blocks
from ..post_training.gptq import GptqOptions, gptq_block
from ..post_training.grid import grid_bits, row_grid
from ..post_training.omniquant import OmniQuantOptions, omniquant_block
from .plan import Plan, Row, minutes_of
from .recipes import recipe_of, shared_settings
from .results import Made

#: of dense weights, embedding and head in every file: rows of int8 with a scale each, since the engine then multiplies all rows of
#: the table in the same way, and dense ones several times as fast as f16. What that changes is told beside each row.
STORED = "q8"
_CPU = World(0, 1, torch.device("cpu"))


@dataclass
class Material:
    """What all rows are made of."""

    plan: Plan
    teacher_path: str
    tokenizer: Path | None
    data: Sequence[Path]
    validation: Sequence[Path]
    out: Path
    #: the folder of paper.toml
    configs: Path
    threads: int
    command: str

    def job(self, row: Row) -> TransferJob:
        return TransferJob(
            self.teacher_path, self.data, self.folder(row), self.validation, self.command, row.name, self.tokenizer,
            tokens=self.out,
        )  # fmt: skip

    def folder(self, row: Row) -> Path:
        """That a row works in."""
        return self.out / "work" / row.name

    def model_path(self, row: Row) -> Path:
        return self.out / "models" / f"{row.name}.obt"

    def teacher(self) -> Teacher:
        return load_teacher(self.teacher_path, tokenizer=self.tokenizer)

    def calibration(self, teacher: Teacher, row: Row) -> Tensor:
        """int64 [N, T]: the sequences that `reconstruct` fits its blocks on."""
        settings = Settings(**shared_settings(self.plan, self.threads))
        blocks, _, _ = prepare_texts(self.job(row), teacher, settings, _CPU)
        return torch.from_numpy(blocks.first(self.plan.calibration_tokens))


def _quantised(model: Llama) -> dict[str, Dense]:
    """The linears that a method rounds, by their full names."""
    linears = model.linears()
    names = [
        f"model.layers.{index}.{name}"
        for index in range(model.config.n_layers)
        for name in signed_linears(model.config, index)
    ]
    return {name: linears[name] for name in names}


def stored_error(model: Llama) -> float:
    """The most that being `STORED` changes a weight of a dense linear by, as a share of the largest of its row."""
    worst = 0.0
    for layer in model.linears().values():
        if isinstance(layer, Dense):
            weight = layer.effective_weight().detach().float()
            largest = weight.abs().amax(1, keepdim=True).clamp_min(1e-30)
            worst = max(worst, float(((weight - as_stored(weight, STORED)) / largest).abs().max()))
    return worst


def _grid_bits_per_weight(model: Llama, bits: int) -> float:
    """With every rounded linear on a grid of its own, the others as they are."""
    rounded = _quantised(model)
    sizes = {name: (layer.out_features, layer.in_features) for name, layer in model.linears().items()}
    pairs = [grid_bits(*size, bits) if name in rounded else 16 * math.prod(size) for name, size in sizes.items()]
    return sum(pairs) / sum(map(math.prod, sizes.values()))


def _post_training(
    material: Material, row: Row, model: Llama, ids: Tensor, budget: TimeBudget
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rounds a dense copy of the teacher by GPTQ or OmniQuant, on ids [N, T]; its options, and what it says of each
    block."""
    bits, folder, count = int(row.bits), material.folder(row), len(model.model.layers)
    started = time.monotonic()

    def told(index: int) -> None:
        took = clock(time.monotonic() - started)
        print(f"{row.name}: block {index + 1}/{count}  {took}", file=sys.stderr, flush=True)

    if row.method == "gptq":
        options = GptqOptions(bits)

        def method(_: int, block: Block, names: list[str], data: Calibration) -> dict[str, Any]:
            return gptq_block(block, names, data, options)
    else:
        options, shares = OmniQuantOptions(bits), EvenShares(budget, count)

        def method(index: int, block: Block, names: list[str], data: Calibration) -> dict[str, Any]:
            said = omniquant_block(block, names, data, options, shares.next(index))
            shares.used(said["seconds"])
            return said

    precision = multiplied_in("bf16", torch.device("cpu"))
    with_targets = row.method == "omniquant"
    quantise_blocks(model, ids, method, folder, precision, with_targets=with_targets, budget=budget, told=told)
    lines = folder / "blocks.jsonl"
    return asdict(options), read_metrics(lines) if lines.exists() else []


def _dense_notes(row: Row) -> list[str]:
    notes = []
    if row.bits == 1:
        notes.append("at 1 bit the levels of a row are mean ± mean |w − mean|" + (
            " to begin with" if row.method == "omniquant" else ", not its ends"
        ))
    if row.method == "omniquant":
        notes.append("scales are learned without shifts, between norms and linears, v and o, up and down, and folded in")
        notes.append("rates five times the authors': there are few steps")
    return notes


def _make_dense(material: Material, row: Row) -> Made:
    """The teacher itself, rounded to nearest, or by GPTQ or OmniQuant."""
    budget, bits = TimeBudget(material.folder(row), minutes_of(row, material.plan)), int(row.bits)
    teacher = material.teacher()
    model = student_of(teacher.model, "dense").requires_grad_(False)
    settings: dict[str, Any] = {}
    blocks, calibrated = [], 0
    if row.method == "rtn":
        for layer in _quantised(model).values():
            layer.weight.copy_(row_grid(layer.weight, bits).round(layer.weight))
    elif row.method in ("gptq", "omniquant"):
        ids = material.calibration(teacher, row)
        settings, blocks = _post_training(material, row, model, ids, budget)
        calibrated = ids.numel()
    seconds = budget.spent()
    made = export_model(
        model, teacher, material.model_path(row), STORED,
        {"method": row.method, "trained": row.trained, "settings": settings, "command": material.command},
        dense=STORED,
    )  # fmt: skip
    return Made(
        settings=settings,
        notes=_dense_notes(row),
        seconds=seconds,
        tokens=0,
        calibration_tokens=calibrated,
        bits=_grid_bits_per_weight(model, bits) if bits else bits_per_weight(model),
        file_bytes=made.file_bytes,
        stored=STORED,
        stored_error=stored_error(model),
        blocks=blocks,
        machine=describe_machine(material.threads),
    )


def _make_trained(material: Material, row: Row) -> Made:
    """By `train` or `reconstruct`, as the command line would."""
    plan, job = material.plan, material.job(row)
    recipe, minutes = recipe_of(row, plan, material.threads, material.configs), minutes_of(row, plan)
    settings, calibrated, given = recipe.settings, 0, recipe.settings.to_dict()
    if row.method in ("onebit-best", "onebit-best-full", "chain"):
        options = BlockFit(tokens=plan.calibration_tokens)
        result = run_reconstruction(job, settings, options, minutes)
        given |= {f"block_{name}": value for name, value in asdict(options).items()}
        calibrated = blocks_for(plan.calibration_tokens, plan.block) * plan.block
    else:
        result = run_transfer(job, settings, minutes)
        if result.steps == 0 and not result.stopped:
            message = f"too few minutes: {minutes:g} are over before the first step of {row.name}"
            raise DistillError("ERR_BAD_OPTION", message, "Give more --minutes, and another --out.")
    if result.stopped:
        raise DistillError("ERR_INTERRUPTED", f"{row.name} was stopped", "The same command goes on from there.")
    model, _, step = load_student(job.run)
    made = export_run(job.run, material.model_path(row), STORED, STORED)
    is_dense = any(isinstance(layer, Dense) for layer in model.linears().values())
    return Made(
        settings=given,
        notes=list(recipe.notes),
        seconds=kept_seconds(job.run),
        tokens=step * settings.batch * settings.block,
        calibration_tokens=calibrated,
        bits=bits_per_weight(model),
        file_bytes=made.file_bytes,
        stored=STORED if is_dense else "",
        stored_error=stored_error(model),
        machine=describe_machine(material.threads),
    )


def make(material: Material, row: Row) -> Made:
    """Writes the row's file. Raises DistillError, ERR_INTERRUPTED where it was asked to stop."""
    for folder in (material.folder(row), material.model_path(row).parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise file_error(cause, folder, "writing") from cause
    dense = row.method in ("teacher", "rtn", "gptq", "omniquant")
    return (_make_dense if dense else _make_trained)(material, row)
