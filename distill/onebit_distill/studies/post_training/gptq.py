"""GPTQ (Frantar, Ashkboos, Hoefler and Alistarh, ICLR 2023, arXiv 2210.17323): rounding whose errors later columns repair.

For a linear y = W x the squared error of outputs over the calibration inputs X is tr(dW H dWᵀ) with H = 2 X Xᵀ, alike for
every row. Columns are rounded one after the other; the error of column j, divided by [H⁻¹]_jj, times row j of H⁻¹ is taken
from the columns that are not rounded yet (equations 2 and 3, Optimal Brain Surgeon). The rows of H⁻¹ that this needs, with
what is rounded eliminated, are those of the Cholesky factor of H⁻¹ (section 3.3, step 3); columns far behind get the errors
of a batch of columns at once (step 2). Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DistillError
from ...model.llama import Block
from .blocks import Calibration
from .grid import RowGrid, row_grid

#: linears that read the same, in the order in which a block computes them: each group is rounded on what the ones before
#: it give when they are rounded already (the authors' --true-sequential)
_ORDER = (
    ("q_proj", "k_proj", "v_proj", "in_proj_qkv", "in_proj_z"),
    ("o_proj", "out_proj"),
    ("gate_proj", "up_proj"),
    ("down_proj",),
)
#: times that a Hessian without an inverse is damped more, up to ten times as much
_TRIES = 4


@dataclass(frozen=True)
class GptqOptions:
    bits: int
    #: share of the mean of H's diagonal that is added to it
    damping: float = 0.01
    #: columns whose errors the others get at once
    columns: int = 128
    #: columns in the order of falling H_jj in the place of their own
    act_order: bool = False


class Hessian:
    """H = 2 X Xᵀ / tokens of what some linears read, float32 [in, in], gathered batch by batch."""

    def __init__(self, size: int) -> None:
        self.total, self.tokens = torch.zeros(size, size), 0

    def add(self, x: Tensor) -> None:
        """x: [..., in]"""
        rows = x.detach().flatten(0, -2).float()
        with torch.autocast(rows.device.type, enabled=False):  # it is called from within a block in bf16
            self.total.addmm_(rows.T, rows, alpha=2.0)
        self.tokens += len(rows)

    def value(self) -> Tensor:
        return self.total / max(1, self.tokens)


def _inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """U, upper, with H⁻¹ = Uᵀ U: its row j is row j of the inverse among columns j and later, over √[H⁻¹]_jj.

    Raises DistillError ERR_NOT_FINITE where H has no inverse even with ten times the damping.
    """
    mean = hessian.diagonal().mean().clamp_min(1e-30)
    for attempt in range(_TRIES):
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean * 10 ** (attempt / (_TRIES - 1)))
        lower, problem = torch.linalg.cholesky_ex(damped)
        if problem == 0:
            factor, problem = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if problem == 0 and bool(torch.isfinite(factor).all()):
                return factor
    raise DistillError("ERR_NOT_FINITE", "GPTQ: the inputs' Hessian has no inverse", "Use more calibration texts.")


@torch.no_grad()
def gptq(w: Tensor, hessian: Tensor, grid: RowGrid, options: GptqOptions) -> Tensor:
    """w [rows, cols] with every weight at a level of its row's grid. hessian: [cols, cols]; the result has w's dtype.

    Raises DistillError ERR_NOT_FINITE.
    """
    h, left = hessian.double().clone(), w.double().clone()
    unused = h.diagonal() <= 0
    # an input that is always 0 has no say: rounded to nearest, it moves no other column
    h.diagonal()[unused] = 1.0
    order = torch.arange(len(h))
    if options.act_order:
        order = h.diagonal().argsort(descending=True)
        left, h = left[:, order], h[order][:, order]
    factor = _inverse_factor(h, options.damping)
    wide = RowGrid(grid.low.double(), grid.scale.double(), grid.levels)
    made = torch.empty_like(left)
    for first in range(0, left.shape[1], options.columns):
        last = min(first + options.columns, left.shape[1])
        errors = torch.empty_like(left[:, first:last])
        for column in range(first, last):
            weights = left[:, column]
            made[:, column] = wide.round(weights[:, None])[:, 0]
            error = (weights - made[:, column]) / factor[column, column]
            left[:, column:last] -= error[:, None] * factor[column, column:last]
            errors[:, column - first] = error
        left[:, last:] -= errors @ factor[first:last, last:]
    back = torch.empty_like(made)
    back[:, order] = made
    return back.to(w.dtype)


def _groups(names: list[str]) -> list[list[str]]:
    """A block's linears (`self_attn.q_proj` …) by what they read, in the order of computing."""
    found = [[name for name in names if name.split(".")[-1] in group] for group in _ORDER]
    known = {name for group in found for name in group}
    return [*(group for group in found if group), *([name] for name in names if name not in known)]


@torch.no_grad()
def _hessian_of(block: Block, name: str, data: Calibration) -> Tensor:
    """Of what one linear reads, float32 [in, in]."""
    layer = block.get_submodule(name)
    seen = Hessian(layer.in_features)
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0]))
    try:
        data.through(block, data.inputs)
    finally:
        handle.remove()
    return seen.value()


def output_error(layer: nn.Module, made: Tensor, hessian: Tensor) -> float:
    """Squared error of a linear's outputs with the weights `made`, as a share of the outputs' squares."""
    weight, h = layer.weight.detach().double(), hessian.double()
    error = made.double() - weight
    return float(((error @ h) * error).sum() / ((weight @ h) * weight).sum().clamp_min(1e-300))


@torch.no_grad()
def gptq_block(block: Block, names: list[str], data: Calibration, options: GptqOptions) -> dict[str, Any]:
    """Rounds the linears `names` of a block in place; each one's share of error in its outputs, and rounding to
    nearest's beside it."""
    said: dict[str, Any] = {}
    for group in _groups(names):
        hessian = _hessian_of(block, group[0], data)
        for name in group:
            layer = block.get_submodule(name)
            grid = row_grid(layer.weight, options.bits)
            made = gptq(layer.weight, hessian, grid, options)
            nearest = grid.round(layer.weight)
            said[name] = [output_error(layer, made, hessian), output_error(layer, nearest, hessian)]
            layer.weight.copy_(made)
    return said
