"""One block of a student fitted to what the teacher's block gives, in stages: float first, then bit by bit.

The block begins with the teacher's own float linears. It first takes up what was lost in the blocks before it ("error
absorption"); then its linears get their signs, group by group, while what is still float makes good for them. All stages
minimise one loss, which tokens with huge values cannot own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import DistillError, check_whole_numbers
from ..model.attention import Step
from ..model.linear import Dense, FoldedSigns, OneBitLinear, SignChain, fold_signs
from ..model.llama import Block
from ..model.starts import StartOptions, StudentKind, start_linear
from ..model.svid import Importance
from .importance import OutputImportance, input_importance
from .optimiser import Muon
from .settings import Settings
from .trainer import LossScale, autocast

ORDERS = ("together", "halves", "single")
LOSSES = ("capped", "relative", "plain")
IMPORTANCES = ("none", "inputs", "both")
#: within a block, when linears are taken one at a time: NanoQuant's order (arXiv 2602.06694), and Gated DeltaNet's alike
_SINGLE_ORDER = (
    "v_proj", "in_proj_qkv", "q_proj", "in_proj_z", "o_proj", "out_proj", "k_proj",
    "gate_proj", "up_proj", "down_proj",
)  # fmt: skip
#: of the steps with signs, those in which all linears have theirs
_LAST_SHARE = 0.7
#: how many ordinary tokens one with huge values may count as
_CAP = 64
#: sequences' tokens that give the inputs' importance
_IMPORTANCE_TOKENS = 16_384


@dataclass(frozen=True)
class BlockFit:
    """Raises DistillError ERR_BAD_OPTION for values out of range."""

    #: tokens that every block is fitted on
    tokens: int = 262_144
    #: optimiser steps a block with signs; 0: only the end-to-end phase
    steps: int = 280
    #: optimiser steps before them, in which the float block takes up what the blocks before it have lost
    absorb: int = 30
    #: of latent signs; docs/reconstruct.md has others
    lr: float = 2e-2
    #: of scales and norms
    scale_lr: float = 1e-3
    #: of linears that are still float, whose weights are near to where they should be
    float_lr: float = 2e-4
    #: sequences a step
    batch: int = 8
    #: what the squared error of a token is divided by: see BlockLoss
    loss: str = "capped"
    #: what errors are weighted by when scales are found: nothing, or inputs' mean squares; both: also by those of the
    #: outputs' gradients, as channels then are in the loss
    importance: str = "inputs"
    #: which linears get their signs at a time: all, attention and then feed-forward, or one
    order: str = "halves"
    #: how far latents are moved away from 0 behind the last block: see `harden`
    margin: float = 0.02

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"tokens": 1, "steps": 0, "absorb": 0, "batch": 1}, "block ")
        for name in ("lr", "scale_lr", "float_lr"):
            if not 0 < getattr(self, name) <= 10:
                message = f"block {name} must be above 0 and at most 10, found {getattr(self, name)!r}"
                raise DistillError("ERR_BAD_OPTION", message)
        if not 0 <= self.margin <= 10:
            message = f"block margin must be from 0 to 10, found {self.margin!r}"
            raise DistillError("ERR_BAD_OPTION", message)
        for name, known in (("loss", LOSSES), ("importance", IMPORTANCES), ("order", ORDERS)):
            if getattr(self, name) not in known:
                message = f"block {name} must be one of {', '.join(known)}, found {getattr(self, name)!r}"
                raise DistillError("ERR_BAD_OPTION", message)


@torch.no_grad()
def harden(model: nn.Module, margin: float) -> None:
    """Moves every latent weight away from 0 by `margin`: no sign changes, and each has a number of steps to go before it can.

    Fitting leaves up to a tenth of a matrix within 0.002 of 0, signs that have gone to and fro. Adam's first step moves each
    weight by the whole rate, whatever its gradient: it would turn all of these at once (a student of SmolLM2-135M: perplexity
    151 before one step at 2e-4, 140,000 behind it).
    """
    for layer in model.modules():
        if isinstance(layer, (OneBitLinear, SignChain)):
            for w, _, _ in layer.matrices():
                w.copy_(torch.where(w < 0, w - margin, w + margin))


class BlockLoss:
    """Mean over tokens of their squared errors (channels by what they are worth), each over a mean square of targets.

    plain: over that of all tokens, so that a few with huge values own the loss: in SmolLM2-135M one in 256 is 30,000 times
    an ordinary one from block 11 on ("massive activations"). relative: over the token's own, by which the next block's norm
    divides; then they count no more than others, although they are what attention rests on. capped: over that of an
    ordinary token, and a huge one counts as at most so many of those. One that only the student makes huge counts as thousands:
    with few steps fitting then rather has no huge tokens at all, which was no worse in the end (docs/reconstruct.md).
    """

    def __init__(self, targets: Tensor, kind: str, channels: Tensor | None = None) -> None:
        """targets: [N, T, dim]; channels: [dim] with mean 1, or None for ones."""
        squares = torch.stack([part.float().square().mean(-1) for part in targets])
        middle = squares.median().clamp_min(1e-30)
        if kind == "plain":
            squares = squares.mean().expand_as(squares)
        elif kind == "capped":
            squares = (squares / _CAP).clamp_min(middle)
        #: what the squared error of each token is multiplied by, [N, T]
        self.inverse = 1 / squares.clamp_min(1e-6 * middle)
        self.channels = None if channels is None else channels.to(targets.device, torch.float32)

    def __call__(self, made: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """made, target: [B, T, dim] of sequences `rows`, int64 [B]; float32 scalar."""
        errors = (made.float() - target.float()).square()
        errors = errors.mean(-1) if self.channels is None else (errors @ self.channels) / len(self.channels)
        return (errors * self.inverse[rows]).mean()


@dataclass
class BlockData:
    """What one block is fitted on."""

    #: what the student's blocks before it give, [N, T, dim]
    inputs: Tensor
    #: what the teacher's block gives from the teacher's own states, [N, T, dim]
    targets: Tensor
    step: Step
    #: what errors of outputs cost; None: all the same
    outputs: OutputImportance | None = None


@dataclass
class BlockReport:
    """Mean loss of the last tenth of the steps of each stage, by the stage's name, and what it took."""

    errors: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    #: of one step of each stage, the shortest
    step_seconds: dict[str, float] = field(default_factory=dict)
    #: of all steps of each stage
    stage_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stepping_seconds(self) -> float:
        """Of all steps together."""
        return sum(self.stage_seconds.values())

    @property
    def last(self) -> float:
        """The error behind the last stage."""
        return list(self.errors.values())[-1] if self.errors else math.nan


def sign_groups(names: list[str], order: str) -> list[list[str]]:
    """Names of a block's linears (`self_attn.q_proj` …) in groups that get their signs one group after the other."""
    if order == "together":
        return [names]
    if order == "halves":
        halves = [[n for n in names if not n.startswith("mlp.")], [n for n in names if n.startswith("mlp.")]]
        return [half for half in halves if half]
    place = {name: index for index, name in enumerate(_SINGLE_ORDER)}
    return [[name] for name in sorted(names, key=lambda name: place.get(name.split(".")[-1], len(place)))]


def stage_steps(groups: int, steps: int) -> list[int]:
    """How many steps follow each group: most of them the last one, behind which everything has its signs."""
    if groups == 1:
        return [steps]
    first = min(steps // groups, round((1 - _LAST_SHARE) * steps / (groups - 1)))
    return [first] * (groups - 1) + [steps - first * (groups - 1)]


def _place(block: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(block.get_submodule(parent), last, layer)


def _float_twin(layer: nn.Module, source: nn.Module) -> Dense:
    """The teacher's linear in float32, where it learns; its bias is the student's own parameter."""
    made = Dense(source.in_features, source.out_features, bias=False).to(source.weight.device)
    made.weight = nn.Parameter(source.weight.detach().float().clone())
    made.bias = layer.bias
    return made


class BlockFitter:
    """Fits one block; `linears` are those that get signs, by their names within the block."""

    def __init__(
        self, block: Block, source: Block, index: int, linears: list[str], data: BlockData,
        options: BlockFit, settings: Settings, start: StartOptions,
    ) -> None:  # fmt: skip
        self.block, self.index, self.data = block, index, data
        self.options, self.settings, self.start = options, settings, start
        self.kind = StudentKind.parse(settings.kind)
        channels = data.outputs.blocks[index] if data.outputs is not None else None
        self.loss = BlockLoss(data.targets, options.loss, channels)
        self.groups = sign_groups(linears, options.order)
        #: a mean over tokens and channels has gradients that fp16 would make 0
        self.scale = LossScale(2.0**16, 1000, hysteresis=1) if settings.precision == "fp16" else None
        #: the student's own linears, each put back when its turn comes
        self.signed = {name: block.get_submodule(name) for name in linears}
        for name, layer in self.signed.items():
            _place(block, name, _float_twin(layer, source.get_submodule(name)))

    def fit(self) -> BlockReport:
        """Through all stages. Raises DistillError ERR_NAN_LOSS."""
        report, begun = BlockReport(), time.perf_counter()
        for name, prepare, steps in self.stages():
            prepare()
            report.steps[name] = steps
            if steps > 0:
                report.errors[name], seconds = self.descend(steps)
                report.step_seconds[name] = min(seconds)
                report.stage_seconds[name] = sum(seconds)
        report.seconds = time.perf_counter() - begun
        return report

    def stages(self) -> Iterator[tuple[str, Callable[[], None], int]]:
        """Name, what comes before the first step, and how many steps there are."""
        yield "absorb", lambda: None, self.options.absorb
        for group, steps in zip(self.groups, stage_steps(len(self.groups), self.options.steps), strict=True):
            yield self._stage_name(group), lambda group=group: self.give_signs(group), steps

    def _stage_name(self, group: list[str]) -> str:
        if len(self.groups) == 1:
            return "all"
        if self.options.order == "single":
            return group[0].split(".")[-1]
        return "feed-forward" if group[0].startswith("mlp.") else "mixer"

    def give_signs(self, names: list[str]) -> None:
        """The student's own linears start from where the float ones are by now, and take their places."""
        importances = self._importances(names)
        for name in names:
            layer, twin = self.signed[name], self.block.get_submodule(name)
            full = f"model.layers.{self.index}.{name}"
            start_linear(layer, twin.weight.detach(), self.kind, self.start, full, importances.get(name))
            _place(self.block, name, layer)

    def _importances(self, names: list[str]) -> dict[str, Importance]:
        if self.options.importance == "none" or self.start.given is not None:
            return {}
        data, block = self.data, self.block
        count = max(1, min(len(data.inputs), _IMPORTANCE_TOKENS // data.inputs.shape[1]))
        parts = torch.arange(count).split(self.options.batch)
        twins = {name: block.get_submodule(name) for name in names}

        def run(rows: Tensor) -> None:
            with autocast(data.inputs.device, self.settings.precision):
                block(data.inputs[rows].float(), data.step)

        runs = [lambda rows=rows: run(rows) for rows in parts]
        inputs = input_importance(block, twins, runs, [self.loss.inverse[rows] for rows in parts])
        outputs = {} if data.outputs is None else data.outputs.linears
        found = {}
        for name, cols in inputs.items():
            rows = outputs.get(f"model.layers.{self.index}.{name}")
            if rows is None:
                rows = torch.ones(twins[name].out_features, dtype=torch.float64)
            device = data.inputs.device
            found[name] = Importance(rows.to(device), cols.to(device))
        return found

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        """Latents, scales with norms and biases, and what is float, each at its own rate."""
        options, settings = self.options, self.settings
        own = {id(p) for layer in self.signed.values() for p in layer.parameters()}
        latents, scales, floats = [], [], []
        for parameter in self.block.parameters():
            if parameter.requires_grad:
                matrix = parameter.dim() > 1
                (scales if not matrix else latents if id(parameter) in own else floats).append(parameter)
        made: list[torch.optim.Optimizer] = []
        if settings.optimiser == "muon" and latents:
            made.append(Muon(latents, options.lr, dtype=torch.bfloat16))
            latents = []
        groups = [(latents, options.lr), (scales, options.scale_lr), (floats, options.float_lr)]
        groups = [{"params": found, "lr": lr} for found, lr in groups if found]
        if groups:
            betas = (settings.beta1, settings.beta2)
            made.append(torch.optim.AdamW(groups, betas=betas, eps=settings.eps, weight_decay=0.0, fused=True))
        for optimiser in made:
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]
        return made

    def descend(self, steps: int) -> tuple[float, list[float]]:
        """One stage: so many steps at rates that fall as a cosine. The mean loss of its last tenth, and each step's
        seconds."""
        # a GPU has no use for signs that are folded beforehand
        on_cpu = self.data.inputs.device.type == "cpu"
        optimisers, folds = self._optimisers(), fold_signs(self.block) if on_cpu else []
        parameters = [parameter for parameter in self.block.parameters() if parameter.requires_grad]
        order = torch.randperm(len(self.data.inputs), generator=torch.Generator().manual_seed(self.settings.seed))
        errors, seconds = [], []
        for number in range(steps):
            started = time.perf_counter()
            rows = order[(torch.arange(self.options.batch) + number * self.options.batch) % len(order)]
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * number / steps))
            errors.append(self._step(rows, optimisers, parameters, folds))
            seconds.append(time.perf_counter() - started)
        for layer in self.signed.values():
            layer.folds = None
        last = torch.stack(errors[-max(1, len(errors) // 10) :])
        if not torch.isfinite(last).all():
            raise DistillError("ERR_NAN_LOSS", "fitting a block diverged", "Choose a lower --block-lr.")
        return float(last.mean()), seconds

    def _unscale(self, parameters: list[nn.Parameter]) -> bool:
        """Whether the gradients can be used: in fp16 they may have become infinite, and the next are scaled less."""
        if self.scale is None:
            return True
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for gradient in gradients:
            gradient.div_(self.scale.scale)
        overflow = not all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        self.scale.update(overflow)
        return not overflow

    def _step(
        self, rows: Tensor, optimisers: list, parameters: list[nn.Parameter], folds: list[FoldedSigns]
    ) -> Tensor:
        """Loss of sequences `rows`, [B], before the step that they make."""
        data = self.data
        with autocast(data.inputs.device, self.settings.precision):
            made = self.block(data.inputs[rows].float(), data.step)
        loss = self.loss(made, data.targets[rows], rows)
        scale = 1.0 if self.scale is None else self.scale.scale
        (loss * scale).backward()
        for fold in folds:
            fold.finish()
        if self._unscale(parameters):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimiser in optimisers:
                optimiser.step()
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        for fold in folds:
            fold.forget()
        return loss.detach()
