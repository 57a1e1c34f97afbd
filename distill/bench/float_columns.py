"""A few float columns beside a linear's signs: W ≈ diag(h) S diag(g) + U V, tried in `reconstruct_recipes.py` alone.

Nothing else knows them: no `.obt` file can hold them, and the engine does not compute them. docs/reconstruct.md has what
they were worth.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from onebit_distill.model.starts import start_linear
from onebit_distill.training.block_fit import BlockFitter, _place


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


def give_signs_beside_columns(fitter: BlockFitter, rank: int, wanted: Collection[str]) -> Callable[[list[str]], None]:
    """`fitter.give_signs`, with columns for the linears of these names (`down_proj`), or for all where there is none."""

    def give_signs(names: list[str]) -> None:
        importances = fitter._importances(names)
        for name in names:
            layer, w = fitter.signed[name], fitter.block.get_submodule(name).weight.detach().float()
            importance, placed = importances.get(name), layer
            if not wanted or name.split(".")[-1] in wanted:
                inputs = torch.ones(w.shape[1]) if importance is None else importance.cols
                u, v = best_columns(w, inputs, rank)
                w, placed = w - u @ v, WithColumns(layer, u, v)
            start_linear(layer, w, fitter.kind, fitter.start, f"model.layers.{fitter.index}.{name}", importance)
            _place(fitter.block, name, placed)

    return give_signs
