"""The data-efficient path: each block fitted to the teacher's own output of it, then a short end-to-end phase.

As NanoQuant (arXiv 2602.06694) does it: a few hundred thousand tokens are enough for the blocks, because each learns
from dim numbers per token instead of one distribution. Alone it falls short at one bit (a 135M teacher, 131 k tokens a
block: perplexity 1,156 after 6 of 30 blocks at 2 bits); the end-to-end phase is what carries.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..errors import DistillError
from ..model.attention import Step
from ..model.llama import Block, Llama
from ..system.atomic_file import writing_atomically
from ..system.processes import World
from .settings import Settings
from .trainer import DTYPES, Trained, autocast
from .transfer import Prepared, TransferJob, run_transfer


@dataclass(frozen=True)
class BlockFit:
    """Raises DistillError ERR_BAD_OPTION for values out of range."""

    #: tokens that every block is fitted on
    tokens: int = 262_144
    #: optimiser steps a block; 0: only the end-to-end phase
    steps: int = 200
    lr: float = 1e-3
    #: sequences a step
    batch: int = 8

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("steps", 0), ("batch", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                message = f"block {name} must be a whole number from {least} on, found {value!r}"
                raise DistillError("ERR_BAD_OPTION", message)
        if not 0 < self.lr <= 10:
            raise DistillError("ERR_BAD_OPTION", f"block lr must be above 0 and at most 10, found {self.lr!r}")


def _fit_block(
    block: Block, inputs: Tensor, targets: Tensor, step: Step, options: BlockFit, settings: Settings
) -> float:
    """Trains one block on inputs [N, T, dim] to give targets; the error of the last tenth of the steps, relative to
    what the block adds to nothing: 1 means as bad as zeros."""
    parameters = [parameter for parameter in block.parameters() if parameter.requires_grad]
    betas = (settings.beta1, settings.beta2)
    optimiser = torch.optim.AdamW(parameters, lr=options.lr, betas=betas, weight_decay=0.0)
    generator = torch.Generator().manual_seed(settings.seed)
    order, errors = torch.randperm(len(inputs), generator=generator), []
    for number in range(options.steps):
        rows = order[(torch.arange(options.batch) + number * options.batch) % len(order)]
        for group in optimiser.param_groups:
            group["lr"] = options.lr * 0.5 * (1 + math.cos(math.pi * number / options.steps))
        target = targets[rows].float()
        with autocast(inputs.device, settings.precision):
            made = block(inputs[rows].float(), step)
        loss = (made.float() - target).square().mean() / target.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        errors.append(loss.detach())
    last = torch.stack(errors[-max(1, len(errors) // 10) :])
    if not torch.isfinite(last).all():
        raise DistillError("ERR_NAN_LOSS", "fitting a block diverged", "Choose a lower --block-lr.")
    return float(last.mean())


@torch.no_grad()
def _through(block: Block, inputs: Tensor, step: Step, options: BlockFit, precision: str) -> Tensor:
    with autocast(inputs.device, precision):
        parts = [block(part.to(next(block.parameters()).dtype), step) for part in inputs.split(options.batch)]
    return torch.cat(parts).to(inputs.dtype)


def fit_blocks(
    teacher: Llama, student: Llama, ids: Tensor, run: Path, options: BlockFit, settings: Settings
) -> list[float]:
    """Fits all blocks of the student in order, each on what the fitted ones before it give. ids: int64 [N, T].

    Each finished block is kept in `run/block-NNN.safetensors`, from which an interrupted fit goes on. Returns the
    relative errors of the blocks fitted by this call.
    """
    keep = DTYPES[settings.precision]
    with torch.no_grad():
        theirs = teacher.embed(ids).to(keep)
        mine = student.embed(ids).to(keep)
    step, errors = student.block_step(ids.shape[1]), []
    for index, (block, source) in enumerate(zip(student.model.layers, teacher.model.layers, strict=True)):
        theirs = _through(source, theirs, step, options, settings.precision)
        path = run / f"block-{index:03d}.safetensors"
        if path.exists():
            block.load_state_dict(load_file(path))
        else:
            errors.append(_fit_block(block, mine, theirs, step, options, settings))
            with writing_atomically(path) as file:
                file.write(save({name: value.contiguous() for name, value in block.state_dict().items()}))
            count = len(student.model.layers)
            print(
                f"reconstruct: block {index + 1}/{count}  relative error {errors[-1]:.4f}", file=sys.stderr, flush=True
            )
        mine = _through(block, mine, step, options, settings.precision)
    return errors


def run_reconstruction(job: TransferJob, settings: Settings, options: BlockFit) -> Trained:
    """The whole of `reconstruct`: blocks, then `settings.steps` or epochs end to end.

    Raises DistillError ERR_RUN_DIFFERS for other options than the run was begun with: blocks that are fitted stay as they
    are, so the others must be fitted alike.
    """
    job = replace(job, more={f"block_{name}": value for name, value in asdict(options).items()})

    def fit(made: Prepared, here: World) -> None:
        if here.size > 1:
            message = "reconstruct runs in one process: blocks are fitted one after the other"
            raise DistillError("ERR_BAD_OPTION", message, "Run it without torchrun.")
        if options.steps == 0:
            return
        count = min(made.blocks.per_epoch, math.ceil(options.tokens / settings.block))
        ids = torch.from_numpy(made.blocks.batch(0, count)).to(here.device)
        fit_blocks(made.teacher.model, made.student, ids, job.run, options, settings)

    return run_transfer(job, settings, before=fit)
