"""The values that the weights of a row may take: 2**bits even levels from a low one on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import DistillError
from ...model.linear import straight_through


@dataclass(frozen=True)
class RowGrid:
    """Levels low + k scale, k = 0 … levels. low, scale: [rows, 1]."""

    low: Tensor
    scale: Tensor
    levels: int

    def round(self, w: Tensor) -> Tensor:
        """The nearest level of each weight. w: [rows, any number of columns]."""
        codes = ((w - self.low) / self.scale).round().clamp(0, self.levels)
        return codes * self.scale + self.low

    def high(self) -> Tensor:
        """The last level, [rows, 1]."""
        return self.low + self.levels * self.scale


def row_grid(w: Tensor, bits: int) -> RowGrid:
    """The asymmetric grid of each row of w [rows, cols]: from its smallest to its largest weight, as `fake_quantise`.

    At 1 bit two levels at the ends would hit no weight at all, so they are mean ± mean |w − mean|: BitNet's b1 (equation 2
    of arXiv 2402.11295), row by row. A row costs two numbers beside its codes. Raises DistillError ERR_BAD_OPTION.
    """
    if not 1 <= bits <= 16:
        raise DistillError("ERR_BAD_OPTION", f"bits must be from 1 to 16, found {bits}")
    if bits == 1:
        middle = w.mean(-1, keepdim=True)
        away = (w - middle).abs().mean(-1, keepdim=True).clamp_min(1e-30)
        return RowGrid(middle - away, 2 * away, 1)
    low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    levels = 2**bits - 1
    return RowGrid(low, ((high - low) / levels).clamp_min(1e-30), levels)


def grid_bits(rows: int, cols: int, bits: int) -> int:
    """Bits of a matrix as it would be stored: codes, and low and scale of each row in 16 bits."""
    return bits * rows * cols + 32 * rows


def rounded_with_gradient(w: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """`RowGrid.round` between low and high [rows, 1], with gradients for w, low and high; only rounding itself is passed
    straight through. w: [rows, cols]."""
    scale = ((high - low) / levels).clamp_min(1e-8)
    codes = (w - low) / scale
    codes = straight_through(torch.round(codes), codes).clamp(0, levels)
    return codes * scale + low
