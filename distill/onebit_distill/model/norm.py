"""Normalisations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import LlamaConfig
from .fused import is_large, normed_branch
from .linear import compute_dtype


class RMSNorm(nn.Module):
    """x / rms(x) ⊙ weight, computed in float32 and rounded to x's dtype before the weight, as Hugging Face does."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) ⊙ weight + bias, computed in float32; without `bias` there is none."""

    def __init__(self, size: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), bias, self.eps).to(x.dtype)


class BiasedRMSNorm(RMSNorm):
    """RMSNorm with a bias behind the weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias.to(x.dtype)


def norm_of(config: LlamaConfig, size: int) -> nn.Module:
    """One of a model's norms, of the sort that the config says. Norms of single heads are not meant: they are RMSNorm
    without a bias in every model."""
    if config.norm == "layer":
        return LayerNorm(size, config.norm_eps, config.norm_bias)
    return (BiasedRMSNorm if config.norm_bias else RMSNorm)(size, config.norm_eps)


def branch(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """x, which goes on beside, and what `norm` makes of it for the products of a branch. [..., dim] both.

    Where it is worth it, the second is in the products' dtype at once, which they would round it to anyway.
    """
    if type(norm) is RMSNorm and is_large(x):
        return normed_branch(x, norm.weight, norm.eps, compute_dtype(x))
    return x, norm(x)
