"""Sign-value-independent decomposition: |W| ≈ h gᵀ (rank one)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import DistillError


@dataclass(frozen=True)
class RankOne:
    """|W| ≈ h gᵀ. g: [cols], h: [rows], both >= 0."""

    g: Tensor
    h: Tensor
    #: ‖|W| − h gᵀ‖ / ‖W‖
    relative_error: float


@dataclass(frozen=True)
class Importance:
    """How much an error in each entry of W counts: rows[i] cols[j] times its square, in the place of 1.

    rows: [rows], of outputs; cols: [cols], of inputs; all above 0. Errors weighted so are plain errors of
    diag(√rows) W diag(√cols), whose best factors give W's when the roots are divided out again: what NanoQuant (arXiv
    2602.06694) and Fujitsu's OneCompression both start from.
    """

    rows: Tensor
    cols: Tensor

    def applied(self, w: Tensor) -> Tensor:
        """diag(√rows) W diag(√cols) in float64, [rows, cols]."""
        rows, cols = self.rows.double(), self.cols.double()
        if rows.shape != w.shape[:1] or cols.shape != w.shape[1:]:
            message = f"importance of {list(rows.shape)} and {list(cols.shape)} for a matrix of {list(w.shape)}"
            raise DistillError("ERR_TENSOR_SHAPE", message)
        return rows.sqrt()[:, None] * w.double() * cols.sqrt()

    def removed(self, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """g [cols] and h [rows] found for the weighted matrix, as W's own; ‖h‖ and ‖g‖ share their product as before."""
        share = h.double().norm().clamp_min(1e-300) / g.double().norm().clamp_min(1e-300)
        g, h = g.double() / self.cols.double().sqrt(), h.double() / self.rows.double().sqrt()
        factor = (share * g.norm().clamp_min(1e-300) / h.norm().clamp_min(1e-300)).sqrt()
        return g / factor, h * factor


def check_matrix(w: Tensor) -> None:
    """Raises DistillError ERR_TENSOR_SHAPE, ERR_NOT_FINITE."""
    if w.dim() != 2:
        raise DistillError("ERR_TENSOR_SHAPE", f"SVID needs a matrix, found shape {list(w.shape)}")
    if not torch.isfinite(w).all():
        raise DistillError("ERR_NOT_FINITE", "SVID needs finite weights, found NaN or infinity")


def _magnitudes(w: Tensor) -> Tensor:
    check_matrix(w)
    return w.detach().abs().double()


def _relative_error(a: Tensor, h: Tensor, g: Tensor) -> float:
    # ‖a − h gᵀ‖² without the difference matrix
    total = a.square().sum()
    rest = total - 2 * (h @ (a @ g)) + h.square().sum() * g.square().sum()
    return float((rest.clamp_min(0) / total.clamp_min(1e-300)).sqrt())


def rank_one_of(w: Tensor, g: Tensor, h: Tensor) -> RankOne:
    """Scales that were found elsewhere, with their error against w [rows, cols]."""
    a = _magnitudes(w)
    return RankOne(g, h, _relative_error(a, h.to(a), g.to(a)))


def svid_svd(w: Tensor, split: float = 0.5, tolerance: float = 1e-12, most: int = 1000) -> RankOne:
    """The best rank-one |W| ≈ h gᵀ, with ‖h‖ = σ^split and ‖g‖ = σ^(1−split).

    Power iteration: |W| has no negative entries, so its first singular pair is far from the second and can be taken
    without a sign (Perron–Frobenius). Equation 4 of arXiv 2402.11295.
    """
    if not 0 <= split <= 1:
        raise DistillError("ERR_BAD_OPTION", f"the split of the scale must be from 0 to 1, found {split}")
    a = _magnitudes(w)
    v = torch.full((a.shape[1],), a.shape[1] ** -0.5, dtype=a.dtype, device=a.device)
    sigma = a.new_zeros(())
    for _ in range(most):
        u = a @ v
        u = u / u.norm().clamp_min(1e-300)
        v = u @ a
        before, sigma = sigma, v.norm()
        v = v / sigma.clamp_min(1e-300)
        if (sigma - before).abs() <= tolerance * sigma:
            break
    h, g = u * sigma**split, v * sigma ** (1 - split)
    return RankOne(g.to(w.dtype), h.to(w.dtype), _relative_error(a, h, g))


def svid_nmf(w: Tensor, tolerance: float = 1e-4, most: int = 200) -> RankOne:
    """What the official start script gets from scikit-learn 1.4.2: NMF(n_components=1, init='random', random_state=0).

    The same random start, updates and stopping rule (sklearn/decomposition/_nmf.py, solver cd), so the scale is shared
    between g and h as it falls out there. Converged, the product equals `svid_svd`'s. The engine's `convert --method nmf`
    (binding/convert/svid.cpp) does the same: to within 2e-6 of every number, the rounding to float32 included.
    """
    a = _magnitudes(w)
    random = np.random.RandomState(0)
    average = float(a.mean()) ** 0.5
    g = torch.from_numpy(np.abs(average * random.standard_normal(a.shape[1]))).to(a)
    h = torch.from_numpy(np.abs(average * random.standard_normal(a.shape[0]))).to(a)
    first = 0.0
    for step in range(most):
        violation = 0.0
        for transposed in (False, True):
            fixed, moving = (h, g) if transposed else (g, h)
            curvature = fixed.square().sum()
            gradient = moving * curvature - (fixed @ a if transposed else a @ fixed)
            projected = torch.where(moving == 0, gradient.clamp_max(0), gradient)
            violation += float(projected.abs().sum())
            if curvature > 0:
                moving = (moving - gradient / curvature).clamp_min(0)
            g, h = (moving, h) if transposed else (g, moving)
        first = violation if step == 0 else first
        if first == 0 or violation / first <= tolerance:
            break
    return RankOne(g.to(w.dtype), h.to(w.dtype), _relative_error(a, h, g))
