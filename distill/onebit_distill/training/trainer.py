"""The training loop: one for teachers made from nothing and for students, on one process or many."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.blocks import Blocks
from ..errors import DistillError
from ..model.linear import compute_dtype, fold_signs
from ..model.llama import Llama
from ..system.processes import World, multiplied_in
from .by_pieces import cross_entropy_sum, next_token_targets
from .checkpoint import Progress, checkpoint_steps, load_checkpoint, save_checkpoint
from .losses import LossParts, lm_loss
from .metrics import Metrics, ProgressLine
from .optimiser import make_optimisers, rate
from .settings import Settings
from .sharding import average_gradients, is_split, shard, sync_gradients
from .time_budget import TimeBudget

#: of a micro-batch, that a CPU works on together
_CPU_TOKENS = 2048

#: whose mean says how long the next ones will take
_RECENT_STEPS = 8
#: as many are thought to fit into a limited time before there has been one
_UNKNOWN_STEPS = 1000

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: loss of a batch: model, ids int64 [B, T], number of the first block -> what is minimised, and its parts
Objective = Callable[[Llama, Tensor, int], tuple[Tensor, LossParts]]


def autocast(device: torch.device, precision: str):
    """Multiplications in the named precision, as `multiplied_in` has it; weights stay float32."""
    precision = multiplied_in(precision, device)
    if precision == "f32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def _at_once(sequences: int, block: int) -> int:
    """How many of a micro-batch's sequences a CPU works on together: the largest divisor that stays within so many
    tokens. Signs are folded and led through their derivative once a step anyway, and products get no faster beyond."""
    within = max(1, _CPU_TOKENS // block)
    return max(size for size in range(1, sequences + 1) if sequences % size == 0 and (size <= within or size == 1))


class LossScale:
    """DeepSpeed's dynamic loss scale for fp16, as the official run sets it (64, window 100, hysteresis 2, least 1)."""

    def __init__(self, start: float, window: int, hysteresis: int = 2) -> None:
        self.scale, self.window, self.hysteresis = start, window, hysteresis
        self.patience, self.good = hysteresis, 0

    def update(self, overflow: bool) -> None:
        if overflow:
            self.good = 0
            if self.patience > 1:
                self.patience -= 1
            else:
                self.scale = max(1.0, self.scale / 2)
        else:
            self.good += 1
            if self.good % self.window == 0:
                self.patience = self.hysteresis
                self.scale *= 2

    def state(self) -> dict:
        return {"scale": self.scale, "patience": self.patience, "good": self.good}

    def restore(self, state: dict) -> None:
        self.scale, self.patience, self.good = state["scale"], state["patience"], state["good"]


@torch.no_grad()
def mean_loss(model: Llama, blocks: np.ndarray, world: World, precision: str, at_once: int) -> float:
    """Mean cross-entropy in nats of the predictable tokens of `blocks`, int64 [n, T]; each starts from nothing."""
    training = model.training
    model.eval()
    total, count = 0.0, 0
    for first in range(0, len(blocks), at_once):
        ids = torch.from_numpy(blocks[first : first + at_once]).to(world.device)
        count += ids[:, 1:].numel()
        with autocast(world.device, precision):
            if is_split(model):
                total += float(lm_loss(model(ids).logits, ids)) * ids[:, 1:].numel()
                continue
            state = model(ids, logits="none").state
            dtype = compute_dtype(state)
        total += float(cross_entropy_sum(state.flatten(0, 1), model.head_weight, next_token_targets(ids), dtype))
    model.train(training)
    return total / count


@dataclass
class Trained:
    steps: int
    #: nats per token; None without validation text
    validation: float | None
    #: whether the run was asked to stop before its last step
    stopped: bool


class Trainer:
    """One run in the folder `run`; made again with the same arguments it goes on from the last checkpoint."""

    def __init__(
        self,
        model: Llama,
        objective: Objective,
        blocks: Blocks,
        validation: np.ndarray,
        settings: Settings,
        run: Path,
        world: World,
        label: str = "train",
        budget: TimeBudget | None = None,
    ) -> None:
        """budget: with a limit, the number of steps is what fits into the time that is left, whatever settings say."""
        self.model, self.objective, self.blocks, self.validation = model, objective, blocks, validation
        self.settings, self.run, self.world = settings, run, world
        if settings.batch % world.size != 0:
            message = f"batch {settings.batch} is not a multiple of the {world.size} processes"
            raise DistillError("ERR_BAD_OPTION", message)
        # A compiler folds by itself, and what processes share is not whole.
        alone = settings.sharding != "fsdp" or world.size == 1
        once = world.device.type == "cpu" and not settings.compile and alone
        self.micro = min(settings.micro_batch, settings.batch // world.size)
        if once:
            self.micro = _at_once(self.micro, settings.block)
        self.accumulate = settings.batch // (world.size * self.micro)
        if self.accumulate * world.size * self.micro != settings.batch:
            message = f"batch {settings.batch} cannot be made of {world.size} processes times {self.micro} sequences"
            raise DistillError("ERR_BAD_OPTION", message, "Choose a micro_batch that divides batch / processes.")
        self.steps = settings.steps or max(1, math.ceil(settings.epochs * blocks.per_epoch / settings.batch))
        model.gradient_checkpointing = settings.gradient_checkpointing
        if settings.sharding == "fsdp":
            shard(model, world)
        self.optimisers = make_optimisers(model, settings)
        self.average = None
        if settings.ema > 0:
            self.average = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        self.forward = torch.compile(model) if settings.compile else model
        self.folds = fold_signs(model) if once else []
        for fold in self.folds:  # before the first step, whose activations would leave holes around them
            fold.value(DTYPES[multiplied_in(settings.precision, world.device)])
        self.scale = LossScale(settings.fp16_scale, settings.fp16_window) if settings.precision == "fp16" else None
        self.progress = Progress()
        self.metrics = Metrics(run / "metrics.jsonl", world.is_first)
        self.line = ProgressLine(label, self.steps, settings.batch * settings.block, world.is_first)
        self.budget = budget
        #: seconds of the last steps, for the plan of those to come
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._stop = False
        self._resume()

    def _resume(self) -> None:
        done = checkpoint_steps(self.run)
        self.world.wait()
        if done:
            self.progress = load_checkpoint(self.run, done[-1], self.model, self.optimisers, self.average, self.world)
            if self.scale is not None and self.progress.loss_scale:
                self.scale.restore(self.progress.loss_scale)
            self.line.note(f"going on from step {self.progress.step}")
        self.metrics.cut(self.progress.step)
        self.line.start(self.progress.step)

    def train(self) -> Trained:
        """To the last step, or until SIGINT or SIGTERM: a checkpoint is then written first.

        Raises DistillError ERR_NAN_LOSS (with the step; the last good checkpoint stays), ERR_DISK_FULL and others.
        """
        with self._signals():
            self.model.train()
            if self.budget is not None and self.budget.is_limited:
                self._begin_in_time()
            while self.progress.step < self.steps:
                self._step()
                self._plan()
                step = self.progress.step
                stop = self.world.any(self._stop)
                last = step == self.steps
                if last or (self.settings.validate_every and step % self.settings.validate_every == 0):
                    self._validate()
                if stop or last or step % self.settings.checkpoint_every == 0:
                    self.save()
                if stop:
                    break
        self.line.finish()
        return Trained(self.progress.step, self.progress.best_validation, self.progress.step < self.steps)

    def seconds_a_step(self) -> float:
        """As measured on one micro-batch and one turn of the optimisers, which changes the model: for a trainer that is
        thrown away afterwards."""
        accumulate, self.accumulate = self.accumulate, 1
        micro, self.micro = self.micro, 1
        self._gradients(0)  # what is compiled at its first use must not count with every step
        self.micro = micro
        started = time.perf_counter()
        self._gradients(0)
        gradients, started = time.perf_counter() - started, time.perf_counter()
        for optimiser in self.optimisers:
            optimiser.step()
        self.accumulate = accumulate
        return gradients * accumulate + time.perf_counter() - started

    def expect(self, seconds: float) -> None:
        """How long a step takes, before there has been one."""
        self._recent.append(seconds)

    def _begin_in_time(self) -> None:
        """Validates and writes a checkpoint before the first step: they tell how much time the last ones need, and a run
        whose time is over has something to export."""
        started = time.perf_counter()
        if self.progress.step == 0:
            self._validate()
            self.save()
            self.progress.closing_seconds = time.perf_counter() - started
        self._plan()

    def _plan(self) -> None:
        """With a limited time, so many steps as will fit: the course of the learning rate ends when the time does."""
        if self.budget is None or not self.budget.is_limited:
            return
        left = max(0.0, self.budget.left() - self.progress.closing_seconds)
        # no step is known yet: one is taken to see how long it lasts, at the end of a run that goes on, and at the
        # beginning of a warm-up in one that begins
        unknown = left if self.progress.step else left / _UNKNOWN_STEPS
        seconds = sum(self._recent) / len(self._recent) if self._recent else unknown
        self.steps = self.line.steps = self.progress.step + int(left / max(seconds, 1e-6))

    @contextlib.contextmanager
    def _signals(self):
        def ask(*_) -> None:
            self._stop = True

        before = {}
        with contextlib.suppress(ValueError):  # not the main thread: whoever runs it handles signals
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def save(self) -> None:
        if self.scale is not None:
            self.progress.loss_scale = self.scale.state()
        save_checkpoint(
            self.run, self.model, self.optimisers, self.average, self.progress, self.world, self.settings.keep
        )
        if self.budget is not None:
            self.budget.keep()

    def _step(self) -> None:
        settings, step = self.settings, self.progress.step
        started = time.perf_counter()
        share = rate(settings, step, self.steps)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
        names, values = self._gradients(step)
        overflow = self._unscale()
        norm = torch.zeros(())
        if not overflow:
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip if settings.clip > 0 else math.inf)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            if not math.isfinite(float(norm)):
                self._fail(step, "the gradient is not finite")
            for optimiser in self.optimisers:
                optimiser.step()
            for fold in self.folds:
                fold.forget()
            self._update_average()
        else:
            self.progress.skipped += 1
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        self.progress.step += 1
        entry = {"step": step + 1, **dict(zip(names, values, strict=True)), "lr_share": share, "grad_norm": float(norm)}
        if self.scale is not None:
            entry["loss_scale"] = self.scale.scale
        self._recent.append(time.perf_counter() - started)
        speed = self.line.advance(self._recent[-1], entry)
        if (step + 1) % settings.log_every == 0 or step + 1 == self.steps:
            self.metrics.write({**entry, "tokens": (step + 1) * settings.batch * settings.block, "tokens_per_s": speed})

    def _gradients(self, step: int) -> tuple[list[str], list[float]]:
        """Runs forward and backward over the step's sequences; the mean loss and its parts over all processes."""
        settings, world = self.settings, self.world
        sums: dict[str, Tensor] = {}
        for micro in range(self.accumulate):
            first = step * settings.batch + (micro * world.size + world.rank) * self.micro
            ids = torch.from_numpy(self.blocks.batch(first, self.micro)).to(world.device)
            sync_gradients(self.model, micro + 1 == self.accumulate)
            with autocast(world.device, settings.precision):
                loss, parts = self.objective(self.forward, ids, first)
            scaled = loss / self.accumulate
            (scaled * self.scale.scale if self.scale is not None else scaled).backward()
            for name, part in {"loss": loss.detach(), **parts}.items():
                sums[name] = sums.get(name, 0) + part.float() / self.accumulate
        for fold in self.folds:
            fold.finish()
        if world.size > 1 and settings.sharding == "replicate":
            average_gradients(self.model, world)
        means = world.mean(torch.stack([*sums.values()])).tolist()
        if not math.isfinite(means[0]) and self.scale is None:
            self._fail(step, f"the loss is {means[0]}")
        return list(sums), means

    def _unscale(self) -> bool:
        """fp16: takes the loss scale out of the gradients; whether they overflowed, so that the step is left out."""
        if self.scale is None:
            return False
        bad = False
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(self.scale.scale)
                bad = bad or not bool(torch.isfinite(parameter.grad).all())
        overflow = self.world.any(bad)
        if overflow and self.scale.scale <= 1.0:
            self._fail(self.progress.step, "the gradient overflows in fp16 even without a loss scale")
        self.scale.update(overflow)
        return overflow

    def _fail(self, step: int, what: str) -> None:
        kept = checkpoint_steps(self.run)
        hint = f"The checkpoint of step {kept[-1]} is kept" if kept else "There is no checkpoint before this step"
        raise DistillError("ERR_NAN_LOSS", f"Training stopped at step {step + 1}: {what}", f"{hint}; try a lower lr.")

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        # early on the average would be made of the start: 1/10 of the run's length at most
        decay = min(self.settings.ema, (1 + self.progress.step) / (10 + self.progress.step))
        for name, parameter in self.model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter, 1 - decay)

    @contextlib.contextmanager
    def averaged(self):
        """The model with its moving average in the place of its weights, for as long as the block lasts."""
        if self.average is None:
            yield
            return
        parameters = {name: p for name, p in self.model.named_parameters() if name in self.average}
        kept = {name: p.detach().clone() for name, p in parameters.items()}
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.average[name])
        try:
            yield
        finally:
            # a forward pass without a backward one leaves FSDP's root gathered: the next step would use the average
            if is_split(self.model):
                self.model.reshard()
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(kept[name])

    def _validate(self) -> None:
        if len(self.validation) == 0:
            return
        with self.averaged():
            loss = mean_loss(self.model, self.validation, self.world, self.settings.precision, self.micro)
        best = self.progress.best_validation
        self.progress.best_validation = loss if best is None else min(best, loss)
        self.line.validated(math.exp(min(loss, 80.0)))
        self.metrics.write(
            {"step": self.progress.step, "validation_loss": loss, "validation_perplexity": math.exp(min(loss, 80.0))}
        )
