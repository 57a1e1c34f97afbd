"""A few float columns beside a linear's signs: W ≈ diag(h) S diag(g) + U V, tried in `reconstruct_recipes.py` alone.

Nothing else knows them: no `.obt` file can hold them, and the engine does not compute them. docs/reconstruct.md has what
they were worth.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from onebit_distill.model.svid import Importance
from onebit_distill.training.block_fit import BlockFitter


class WithColumns(nn.Module):
    """y = layer(x) + U V x. u: [out, rank]; v: [rank, in]."""

    def __init__(self, layer: nn.Module, u: Tensor, v: Tensor) -> None:
        super().__init__()
        self.layer, self.u, self.v = layer, nn.Parameter(u), nn.Parameter(v)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + (x @ self.v.to(x.dtype).T) @ self.u.to(x.dtype).T


def best_columns(w: Tensor, inputs: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U [out, rank] and V [rank, in] nearest to w, [out, in], when errors count as `inputs`, [in], are large."""
    roots = inputs.to(w.dtype).clamp_min(0).sqrt()
    roots = (roots / roots.mean()).clamp_min(1e-3)
    u, d, v = torch.linalg.svd(w * roots, full_matrices=False)
    shared = d[:rank].sqrt()
    return u[:, :rank] * shared, v[:rank] * shared[:, None] / roots


def with_columns(fitter: BlockFitter, rank: int, wanted: Collection[str]) -> BlockFitter:
    """The same, with columns for the linears of these names (`down_proj`), or for all where there is none."""
    plain = fitter.started

    def started(name: str, w: Tensor, importance: Importance | None) -> nn.Module:
        if wanted and name.split(".")[-1] not in wanted:
            return plain(name, w, importance)
        inputs = torch.ones(w.shape[1]) if importance is None else importance.cols
        u, v = best_columns(w, inputs, rank)
        return WithColumns(plain(name, w - u @ v, importance), u, v)

    fitter.started = started
    return fitter
