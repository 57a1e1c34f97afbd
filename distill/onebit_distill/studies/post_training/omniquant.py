"""OmniQuant (Shao et al., ICLR 2024, arXiv 2308.13137), weights only: what may be lost in rounding is learned block by block.

Two things are learned, and no weight. Where each row is clipped (equation 2): the grid goes from sigmoid(β) min W to
sigmoid(γ) max W. And scales of channels that leave the float block as it is (equation 3, see transformation.py). Both minimise
the squared distance of the rounded block's outputs, from what the rounded blocks before it give, to the float model's
(equation 1), by AdamW without decay. At the end the scales are folded into norms and weights, which
leaves a plain dense model. Written from the paper.

Ours: rates five times the authors' (1e-2 and 5e-3) and steps of fewer tokens, since there is time for some 300 steps a block in the
place of 5,120, in which a logit would hardly move. Errors of blocks 1 and 4 of SmolLM2-135M at 2 bits (nearest: 1.16 and 0.43) after
30 s of 2 cores of a Zen 4 each: 0.53 and 0.120 with the authors' rates and 8 sequences of 256 tokens a step, 0.22 and 0.043 with 2,
0.132 and 0.0159 with 2 and five times the rates; 12 times, and a single sequence, are no better.

Where the paper has nothing: 1 bit, whose clipping begins where `row_grid`'s two levels are; scales that begin at 1
(the authors begin with SmoothQuant's, which were made for rounding activations) and are learned as logarithms.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ...errors import DistillError
from ...model.llama import Block
from ...training.block_fit import BlockLoss
from ...training.trainer import autocast
from .blocks import Calibration
from .grid import rounded_with_gradient, row_grid
from .transformation import Site, sites_of, transformed

#: sigmoid's argument where clipping begins: nearly nothing is cut off
_FIRST_LOGIT = 4.0
#: sequences whose error is told: time that is not learned in
_LOOKED_AT = 64
#: how near to 0 and to all of a range clipping may begin: sigmoid never gets there
_EDGE = 1e-3


@dataclass(frozen=True)
class OmniQuantOptions:
    bits: int
    #: passes over the calibration texts, where the time is enough: 20, and 40 at 2 bits and fewer
    epochs: int = 0
    #: of γ and β
    clip_lr: float = 5e-2
    #: of scales
    scale_lr: float = 2.5e-2
    #: sequences a step
    batch: int = 2
    #: of BlockLoss; plain: the paper's
    loss: str = "plain"
    clips: bool = True
    transforms: bool = True

    def passes(self) -> int:
        return self.epochs or (40 if self.bits <= 2 else 20)


def _logit(share: Tensor) -> Tensor:
    return torch.logit(share.clamp(_EDGE, 1 - _EDGE))


class Clipping:
    """γ and β of one linear, float32 [rows, 1] each."""

    def __init__(self, w: Tensor, bits: int) -> None:
        """w: [rows, cols], where learning begins."""
        self.levels = 2**bits - 1
        ones = torch.full((len(w), 1), _FIRST_LOGIT)
        self.gamma, self.beta = ones.clone(), ones.clone()
        if bits == 1:
            grid = row_grid(w, bits)
            self.gamma = _logit(grid.high() / w.amax(1, keepdim=True).clamp_min(1e-30))
            self.beta = _logit(grid.low / w.amin(1, keepdim=True).clamp_max(-1e-30))
        for logits in (self.gamma, self.beta):
            logits.requires_grad_()

    def ends(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest level of each row, [rows, 1]."""
        low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
        return torch.sigmoid(self.beta) * low, torch.sigmoid(self.gamma) * high

    def rounded(self, w: Tensor) -> Tensor:
        return rounded_with_gradient(w, *self.ends(w), self.levels)


class OmniQuantBlock:
    """One block that learns; its own parameters stay as they are until `fold`."""

    def __init__(self, block: Block, names: list[str], data: Calibration, options: OmniQuantOptions) -> None:
        """names: of the linears that are rounded, within the block; data: with targets."""
        if data.targets is None:
            raise DistillError("ERR_BAD_OPTION", "OmniQuant needs the float block's outputs")
        self.block, self.names, self.data, self.options = block, names, data, options
        self.floats = {name: value.detach() for name, value in block.named_parameters()}
        self.sites: list[Site] = sites_of(block) if options.transforms else []
        self.logs = [torch.zeros(site.channels, requires_grad=True) for site in self.sites]
        self.clips = {name: Clipping(self.floats[f"{name}.weight"], options.bits) for name in names}
        self.loss = BlockLoss(data.targets, options.loss)

    def float_parameters(self) -> dict[str, Tensor]:
        """The block's with scales moved, nothing rounded."""
        return transformed(self.floats, self.sites, [log.exp() for log in self.logs])

    def parameters(self) -> dict[str, Tensor]:
        """What the block computes with: scales moved, then rounded."""
        made = self.float_parameters()
        for name in self.names:
            weight = f"{name}.weight"
            made[weight] = self._rounded(name, made[weight])
        return made

    def _rounded(self, name: str, w: Tensor) -> Tensor:
        if self.options.clips:
            return self.clips[name].rounded(w)
        # scales alone still need a gradient through the grid
        grid = row_grid(w, self.options.bits)
        return rounded_with_gradient(w, grid.low, grid.high(), grid.levels)

    def outputs(self, parameters: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Of sequences `rows` [B], [B, T, dim]."""
        inputs = self.data.inputs[rows].float()
        with autocast(inputs.device, self.data.precision):
            return functional_call(self.block, parameters, (inputs, self.data.step))

    @torch.no_grad()
    def error(self, parameters: dict[str, Tensor]) -> float:
        """The loss over the first calibration texts."""
        total, count = 0.0, min(len(self.data.inputs), _LOOKED_AT)
        for rows in torch.arange(count).split(self.data.at_once):
            total += len(rows) * float(self.loss(self.outputs(parameters, rows), self.data.targets[rows], rows))
        return total / count

    def nearest(self) -> dict[str, Tensor]:
        """Parameters with the same linears rounded to nearest, nothing learned."""
        made = dict(self.floats)
        for name in self.names:
            weight = made[f"{name}.weight"]
            made[f"{name}.weight"] = row_grid(weight, self.options.bits).round(weight)
        return made

    def learn(self, seconds: float) -> int:
        """Passes over the texts until they are enough or the seconds are over, at least one step; how many steps there
        were. Raises DistillError ERR_NAN_LOSS."""
        options, count = self.options, len(self.data.inputs)
        clips = [logits for clip in self.clips.values() for logits in (clip.gamma, clip.beta)] if options.clips else []
        groups = [{"params": clips, "lr": options.clip_lr}, {"params": self.logs, "lr": options.scale_lr}]
        optimiser = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
        started, steps = time.monotonic(), 0
        for epoch in range(options.passes()):
            order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(options.batch):
                loss = self.loss(self.outputs(self.parameters(), rows), self.data.targets[rows], rows)
                if not bool(torch.isfinite(loss)):
                    raise DistillError("ERR_NAN_LOSS", "OmniQuant: a block's loss is no number")
                loss.backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                steps += 1
                if time.monotonic() - started > seconds:
                    return steps
        return steps

    @torch.no_grad()
    def fold(self) -> None:
        """Puts what was learned into the block: scaled norms, and weights that are levels of their rows."""
        made = self.parameters()
        for name, parameter in self.block.named_parameters():
            parameter.copy_(made[name])


def omniquant_block(
    block: Block, names: list[str], data: Calibration, options: OmniQuantOptions, seconds: float
) -> dict[str, Any]:
    """Learns for so many seconds at most, and changes the block in place; errors, steps and the seconds they took."""
    work = OmniQuantBlock(block, names, data, options)
    before, started = work.error(work.nearest()), time.monotonic()
    steps = work.learn(seconds)
    took = time.monotonic() - started
    after = work.error(work.parameters())
    work.fold()
    return {"steps": steps, "seconds": took, "error": after, "nearest_error": before}
