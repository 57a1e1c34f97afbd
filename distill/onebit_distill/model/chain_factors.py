"""The start of a chain of two sign matrices: W ≈ diag(h) sign(second) diag(mid) sign(first) diag(g).

W is split in two at its singular values, and both halves are drawn towards sign matrices with a scale for each row and column
while their product stays near W: NanoQuant's start (arXiv 2602.06694), by the alternating direction method of multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .linear import sign
from .svid import check_matrix, svid_svd

#: steps of power iteration for the scales of signs in each step of the method
_POWER_STEPS = 3


@dataclass(frozen=True)
class ChainFactors:
    """W ≈ diag(h) sign(second) diag(mid) sign(first) diag(g)."""

    g: Tensor
    #: [rank, cols]; its magnitudes are left for latents
    first: Tensor
    mid: Tensor
    #: [rows, rank]
    second: Tensor
    h: Tensor
    relative_error: float


def _signed_rank_one(x: Tensor) -> Tensor:
    """sign(x) ⊙ u vᵀ with u vᵀ near to |x|: `svid_svd` of few steps, for a loop."""
    a = x.abs()
    v = a.mean(0)
    for _ in range(_POWER_STEPS):
        u = a @ v / v.square().sum().clamp_min(1e-30)
        v = a.T @ u / u.square().sum().clamp_min(1e-30)
    return sign(x) * (u[:, None] * v)


def _halves(w: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """[rows, rank] and [rank, cols] whose product is W, or the nearest of that rank. A random rotation between them spreads
    singular values over all columns, also those of a rank above min(rows, cols)."""
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    keep = min(rank, s.numel())
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64).to(w))[0][:keep]
    root = s[:keep].sqrt()
    return (u[:, :keep] * root) @ rotation, rotation.T @ (root[:, None] * vt[:keep])


def _pulled(other: Tensor, product: Tensor, target: Tensor, pull: float) -> Tensor:
    """The half A that is best for ‖A other − W‖² + p ‖A − target‖², p in units of other's mean row. product: W otherᵀ."""
    gram = other @ other.T
    p = pull * gram.diagonal().mean().clamp_min(1e-30)
    gram.diagonal().add_(p)
    return torch.cholesky_solve((product + p * target).T, torch.linalg.cholesky(gram)).T


def _towards_signs(w: Tensor, left: Tensor, right: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Both halves after so many steps; each step pulls a little more. What one half has left to go is added to the next
    step's target (the method's dual variable)."""
    halves = [left, right.T.contiguous()]
    targets = [_signed_rank_one(half) for half in halves]
    missing = [torch.zeros_like(half) for half in halves]
    for step in range(steps):
        pull = (step + 1) / steps
        for index, matrix in ((0, w), (1, w.T)):
            other = halves[1 - index].T
            half = _pulled(other, matrix @ other.T, targets[index] - missing[index], pull)
            targets[index] = _signed_rank_one(half + missing[index])
            missing[index] = missing[index] + half - targets[index]
            halves[index] = half
    return halves[0] + missing[0], (halves[1] + missing[1]).T


def chain_factors(w: Tensor, rank: int, steps: int = 60, seed: int = 0) -> ChainFactors:
    """Relative errors of SmolLM2-135M's matrices at 1.0 bits, 60 steps: 0.31 to 0.61, where one sign matrix with two scales
    has 0.58 to 0.62, and a rotation of both halves towards signs (LittleBit-2, arXiv 2603.00042), the start before, 0.49
    to 0.71. w: [rows, cols].

    Raises DistillError ERR_NOT_FINITE.
    """
    check_matrix(w)
    wide = w.detach().double()
    size = wide.norm()
    if float(size) == 0:
        zeros = [w.new_zeros(shape) for shape in (w.shape[1], (rank, w.shape[1]), rank, (w.shape[0], rank), w.shape[0])]
        return ChainFactors(*zeros, relative_error=0.0)
    # of length 1: what is added so that nothing is divided by 0 stays small beside it
    narrow = (wide / size).float()
    left, right = _halves(narrow, rank, seed)
    left, right = (half.double() * size.sqrt() for half in _towards_signs(narrow, left, right, steps))
    outer, inner = svid_svd(left, split=1.0), svid_svd(right, split=0.0)
    mid = outer.g * inner.h
    product = (sign(left) * outer.h[:, None]) @ (mid[:, None] * sign(right) * inner.g)
    # The best single factor: two rank-one fits leave the product a little too small.
    factor = (wide * product).sum() / product.square().sum().clamp_min(1e-300)
    error = float((wide - factor * product).norm() / size)
    parts = (inner.g, right, mid * factor, left, outer.h)
    return ChainFactors(*(part.to(w.dtype) for part in parts), relative_error=error)
