"""`reconstruct`: blocks fitted to the teacher's one after the other, then everything end to end for the time there is.

As NanoQuant (arXiv 2602.06694) does it: a few hundred thousand tokens are enough for the blocks, because each learns
from dim numbers per token instead of one distribution. How one block is fitted is in block_fit.py.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..errors import DistillError
from ..model.llama import Block, Llama
from ..model.starts import signed_linears
from ..system.atomic_file import writing_atomically
from ..system.clock import clock
from ..system.processes import World
from .block_check import MixedCheck, through
from .block_fit import BlockData, BlockFit, BlockFitter, BlockReport, harden, sign_groups, stage_steps
from .checkpoint import checkpoint_steps
from .importance import OutputImportance, output_importance
from .losses import Transfer
from .metrics import Metrics
from .settings import Settings
from .time_budget import TimeBudget
from .trainer import DTYPES, Trained, Trainer
from .transfer import Prepared, TransferJob, fit, machine, prepare, start_options

#: of a limited time, what blocks may take: end to end every minute is worth more once signs are near
_BLOCK_SHARE = 0.6
#: a stage of fewer steps than this does more harm than good
_LEAST_STEPS = 4


def defaults(kind: str, start: str) -> dict[str, Any]:
    """Settings of `reconstruct` where neither the command line nor a file says it; kind and start: as `Settings` has them.

    Signs are found by the time the rates count, and with these a latent has at least 20 steps to go before it turns one
    (BlockFit.margin). A column of floats is worth more than anything else that was tried, and was tried beside single sign
    matrices only; a start of a file has none. docs/reconstruct.md has what else there was.
    """
    return {"lr": 1e-3, "hidden_weight": 0.05, "column": kind == "onebit" and not start.endswith(".obt")}


def _say(text: str) -> None:
    print(f"reconstruct: {text}", file=sys.stderr, flush=True)


def block_path(run: Path, index: int) -> Path:
    return run / f"block-{index:03d}.safetensors"


def keep_block(run: Path, index: int, block: Block, said: dict[str, Any]) -> None:
    """Writes a finished block, and what is said of it as a line of `run/blocks.jsonl`."""
    with writing_atomically(block_path(run, index)) as file:
        file.write(save({name: value.contiguous() for name, value in block.state_dict().items()}))
    Metrics(run / "blocks.jsonl", writes=True).write({"block": index, **said})


@dataclass(frozen=True)
class BlockPace:
    """Seconds that a block takes, as measured on a copy of the first one, and then on each that is fitted."""

    #: of one step, stage by stage: of the blocks' stages, which are not the same where attention takes turns with other kinds
    steps: dict[str, float]
    #: of everything besides steps: starts, importance, states through both models
    rest: float

    def seconds(self, options: BlockFit, groups: int) -> float:
        """Of one block with these options."""
        absorb, *stages = self.steps.values()
        counts = stage_steps(groups, options.steps)
        if len(stages) == groups:
            stepping = sum(count * each for count, each in zip(counts, stages, strict=True))
        else:
            stepping = options.steps * sum(stages) / len(stages)
        return self.rest + options.absorb * absorb + stepping

    def seen(self, report: BlockReport, seconds: float) -> BlockPace:
        """As the block of this report was, which took so many seconds in all: a machine is not always as busy."""
        means = {name: report.stage_seconds[name] / count for name, count in report.steps.items() if count > 0}
        return BlockPace({**self.steps, **means}, max(0.0, seconds - report.stepping_seconds))

    def within(self, options: BlockFit, groups: int, seconds: float) -> BlockFit:
        """The options with fewer steps, where that many take longer than so many seconds; never less than a few."""
        stepping = self.seconds(options, groups) - self.rest
        share = min(1.0, max(0.0, seconds - self.rest) / max(stepping, 1e-9))
        steps, absorb = int(share * options.steps), int(share * options.absorb)
        return replace(options, steps=max(steps, min(options.steps, _LEAST_STEPS * groups)), absorb=absorb)


class Reconstruction:
    """Fits all blocks of the student in order, each on what the fitted ones before it give.

    Each finished block is kept in `run/block-NNN.safetensors`, from which an interrupted fit goes on.
    """

    def __init__(
        self, teacher: Llama, student: Llama, ids: Tensor, run: Path, options: BlockFit, settings: Settings,
        check: MixedCheck | None = None,
    ) -> None:  # fmt: skip
        """ids: int64 [N, T]; check: of what blocks do to the whole model, or None."""
        self.teacher, self.student, self.ids, self.run = teacher, student, ids, run
        self.options, self.settings, self.check = options, settings, check
        self.step = student.block_step(ids.shape[1])
        self.count = len(student.model.layers)
        self.start = start_options(settings)
        self._outputs: OutputImportance | None = None

    def _linears(self, index: int) -> list[str]:
        """Names, within the block, of the linears that get signs."""
        return signed_linears(self.student.config, index)

    def is_done(self) -> bool:
        return all(block_path(self.run, index).exists() for index in range(self.count))

    def load(self) -> None:
        """All blocks of a finished fit."""
        for index, block in enumerate(self.student.model.layers):
            block.load_state_dict(load_file(block_path(self.run, index)))

    def outputs(self) -> OutputImportance | None:
        """Found once a run, and kept with it."""
        path = self.run / "importance.safetensors"
        if self.options.importance != "both":
            return None
        if self._outputs is None:
            if not path.exists():
                output_importance(self.teacher, self.ids, self.settings).save(path)
            self._outputs = OutputImportance.load(path)
        return self._outputs

    def fitter(self, block: Block, index: int, mine: Tensor, theirs: Tensor, options: BlockFit) -> BlockFitter:
        """mine: what the student's blocks before it give; theirs: what the teacher's block gives; [N, T, dim] both."""
        data = BlockData(mine, theirs, self.step, self.outputs())
        source, names = self.teacher.model.layers[index], self._linears(index)
        return BlockFitter(block, source, index, names, data, options, self.settings, self.start)

    def _embedded(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the first block reads in the teacher and in the student, [N, T, dim] both."""
        keep = DTYPES[self.settings.precision]
        with torch.no_grad():
            return self.teacher.embed(ids).to(keep), self.student.embed(ids).to(keep)

    def passed(self, block: Block, states: Tensor) -> Tensor:
        """What a block of either model makes of states [N, T, dim]."""
        return through(block, states, self.step, self.settings.precision, self.options.batch)

    def groups(self, index: int = 0) -> int:
        return len(sign_groups(self._linears(index), self.options.order))

    def measure(self) -> BlockPace:
        """Fits a copy of the first block that is nobody's with two steps a stage; changes nothing."""
        self._measured(self.ids[: self.options.batch])  # what is compiled at its first use must not count thirty times
        return self._measured(self.ids)

    def _measured(self, ids: Tensor) -> BlockPace:
        started = time.perf_counter()
        theirs, mine = self._embedded(ids)
        theirs = self.passed(self.teacher.model.layers[0], theirs)
        forward = time.perf_counter() - started
        few = replace(self.options, absorb=2, steps=2 * self.groups())
        report = self.fitter(copy.deepcopy(self.student.model.layers[0]), 0, mine, theirs, few).fit()
        # the student's own states take a second pass
        rest = 2 * forward + report.seconds - report.stepping_seconds
        return BlockPace(report.step_seconds, rest)

    def fit_all(
        self,
        choose: Callable[[int], BlockFit] | None = None,
        ended: Callable[[BlockReport, float], None] | None = None,
    ) -> list[BlockReport]:
        """choose: options for the block of a number that is about to be fitted, default those of the run; ended: told of
        each that was, with the seconds it took. Returns the reports of the blocks fitted by this call."""
        theirs, mine = self._embedded(self.ids)
        reports = []
        for index, (block, source) in enumerate(zip(self.student.model.layers, self.teacher.model.layers, strict=True)):
            started = time.perf_counter()
            theirs, path = self.passed(source, theirs), block_path(self.run, index)
            report = None
            if path.exists():
                block.load_state_dict(load_file(path))
            else:
                options = self.options if choose is None else choose(index)
                if index == 0:  # it reads what the teacher's does: nothing is lost before it
                    options = replace(options, absorb=0)
                report = self.fitter(block, index, mine, theirs, options).fit()
                reports.append(report)
            mine = self.passed(block, mine)
            perplexity = None if self.check is None else self.check.behind(index, block, wanted=report is not None)
            if report is not None:
                self._keep(index, report, perplexity)
                if ended is not None:
                    ended(report, time.perf_counter() - started)
        return reports

    def _keep(self, index: int, report: BlockReport, perplexity: float | None) -> None:
        """Keeps a fitted block, and tells of it."""
        entry: dict[str, Any] = {"errors": report.errors, "steps": report.steps, "seconds": round(report.seconds, 2)}
        told = f"block {index + 1}/{self.count}  relative error {report.last:.4f}"
        if perplexity is not None:
            entry["perplexity"] = perplexity
            told += f"  perplexity {perplexity:.2f} with the teacher's blocks behind it"
        keep_block(self.run, index, self.student.model.layers[index], entry)
        _say(f"{told}  {clock(report.seconds)}")


def _end_to_end_seconds(made: Prepared, settings: Settings, here: World) -> tuple[float, int]:
    """Of one step end to end, as measured on a copy of the student; and how many steps the settings ask for."""
    with tempfile.TemporaryDirectory() as folder:
        student, objective = copy.deepcopy(made.student), Transfer(made.teacher.model, settings)
        trainer = Trainer(student, objective, made.blocks, np.zeros((0, 2), np.int64), settings, Path(folder), here)
        return trainer.seconds_a_step(), trainer.steps


class _Plan:
    """What takes how long, measured before it begins."""

    def __init__(self, work: Reconstruction, made: Prepared, settings: Settings, budget: TimeBudget, here: World):
        self.work, self.budget = work, budget
        self.groups = work.groups()
        self.missing = sum(not block_path(work.run, index).exists() for index in range(work.count))
        self.pace = work.measure()
        self.step_seconds, steps = _end_to_end_seconds(made, settings, here)
        self._tell(steps)

    def options(self, index: int) -> BlockFit:
        """Of a block that is next: fewer steps where the time for blocks is short."""
        options = self.work.options
        if not self.budget.is_limited:
            return options
        seconds = (_BLOCK_SHARE * self.budget.total - self.budget.spent()) / (self.work.count - index)
        self.budget.keep()
        return self.pace.within(options, self.groups, seconds)

    def ended(self, report: BlockReport, seconds: float) -> None:
        self.pace = self.pace.seen(report, seconds)

    def _tell(self, steps: int) -> None:
        first = self.work.count - self.missing
        options = self.options(first)
        each = self.pace.seconds(options, self.groups)
        blocks = each * self.missing
        steps_each = f"{options.absorb} + {options.steps} steps"
        _say(f"{self.missing} blocks of about {clock(each)} each ({steps_each}), {clock(blocks)} in all")
        if self.budget.is_limited:
            left = self.budget.left() - blocks
            if left < 0:
                message = f"too few minutes: blocks with {options.steps} steps each take about {clock(blocks)}"
                raise DistillError("ERR_BAD_OPTION", message, "Give more --minutes, or fewer --block-tokens.")
            steps = int(left / self.step_seconds)
        behind = steps * self.step_seconds
        told = f"then {steps} steps of about {self.step_seconds:.2g} s end to end, {clock(behind)}"
        _say(f"{told}; {clock(blocks + behind)} from now on")


def _fit_blocks(
    job: TransferJob, settings: Settings, options: BlockFit, made: Prepared, budget: TimeBudget, here: World
) -> float | None:
    """Blocks as far as they are missing; how long a step end to end is going to take, where that was measured."""
    if options.steps == 0 or checkpoint_steps(job.run):
        return None
    ids = torch.from_numpy(made.blocks.first(options.tokens)).to(here.device)
    check = None
    if len(made.validation):
        check = MixedCheck(made.teacher.model, made.student, made.validation, settings, here.device)
    work = Reconstruction(made.teacher.model, made.student, ids, job.run, options, settings, check)
    seconds = None
    if work.is_done():
        work.load()
    else:
        plan = _Plan(work, made, settings, budget, here)
        seconds = plan.step_seconds
        work.fit_all(plan.options, plan.ended)
        budget.keep()
    harden(made.student, options.margin)
    return seconds


def _check_options(settings: Settings, options: BlockFit) -> None:
    alone = options.absorb == 0 and options.order == "together"
    if settings.start_file is not None and options.steps > 0 and not alone:
        message = f"{settings.start} has scales of the teacher's weights, which blocks leave before they get signs"
        raise DistillError("ERR_BAD_OPTION", message, "Add --block-absorb 0 --block-order together, or --block-steps 0.")


def run_reconstruction(job: TransferJob, settings: Settings, options: BlockFit, minutes: float = 0.0) -> Trained:
    """The whole of `reconstruct`: blocks, then end to end. minutes: for all of it, over all calls; 0: as long as
    `settings.steps` or epochs take.

    Raises DistillError ERR_RUN_DIFFERS for other options than the run was begun with: blocks that are fitted stay as
    they are, so the others must be fitted alike. ERR_BAD_OPTION when blocks alone take longer than `minutes`.
    """
    _check_options(settings, options)
    more = {f"block_{name}": value for name, value in asdict(options).items()}
    job = replace(job, more={**more, "minutes": minutes})
    budget = TimeBudget(job.run, minutes)
    with machine(settings) as here:
        if here.size > 1:
            message = "reconstruct runs in one process: blocks are fitted one after the other"
            raise DistillError("ERR_BAD_OPTION", message, "Run it without torchrun.")
        made = prepare(job, settings, here, started=options.steps == 0)
        seconds = _fit_blocks(job, settings, options, made, budget, here)
        return fit(job, settings, made, here, budget, seconds)
