"""What a layer computes between its products, on a CPU: a part of the tokens at a time, forward and backward.

Written plainly, each of these is a chain of five to ten tensors as large as all activations, and memory is all that they
cost. A part small enough for a core's cache makes them several times faster, and autograd keeps none of what lies between.
The plain way stands where these are called, and is taken for few tokens, other devices and compilers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: numbers that are worked on at once
CACHE_NUMBERS = 1 << 17


def in_parts(x: Tensor) -> bool:
    """Whether x is so large, and where it is, that parts are worth their overhead."""
    return x.device.type == "cpu" and x.numel() > CACHE_NUMBERS and not torch.compiler.is_compiling()


def parts(rows: int, width: int) -> list[slice]:
    """Rows of a [rows, width] tensor, as many at once as fit the cache."""
    size = max(1, CACHE_NUMBERS // width)
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


class _NormedBranch(torch.autograd.Function):
    """x as it is, and x / rms(x) ⊙ weight in `dtype`: one function, so that the gradients of both are added on the way."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        rows = x.flatten(0, -2)
        out = torch.empty_like(rows, dtype=dtype)
        scale = torch.empty(len(rows), 1, device=x.device)
        rounded = weight.to(x.dtype)
        for part in parts(*rows.shape):
            wide = rows[part].float()
            torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps), out=scale[part])
            out[part] = (wide * scale[part]).to(x.dtype).mul_(rounded)
        ctx.save_for_backward(x, weight, scale)
        return x.view_as(x), out.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, beside: Tensor, grad: Tensor):
        x, weight, scale = ctx.saved_tensors
        rows, grad, beside = x.flatten(0, -2), grad.flatten(0, -2), beside.flatten(0, -2)
        grad_x, grad_weight = torch.empty_like(rows), torch.zeros(rows.shape[1], device=x.device)
        wide_weight = weight.float()
        for part in parts(*rows.shape):
            normed, above = rows[part].float() * scale[part], grad[part].float()
            above_normed = above * normed
            grad_weight += above_normed.sum(0)
            # d(x/rms)/dx takes out of the gradient what would only make x longer
            along = torch.mv(above_normed, wide_weight).div_(rows.shape[1])
            inner = (above * wide_weight).sub_(normed.mul_(along[:, None])).mul_(scale[part])
            torch.add(beside[part], inner, out=grad_x[part])
        return grad_x.view_as(x), grad_weight.to(weight.dtype), None, None


def normed_branch(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x and its RMSNorm in `dtype`, both [..., dim]."""
    return _NormedBranch.apply(x, weight, eps, dtype)


class _Gated(torch.autograd.Function):
    """silu(gate) ⊙ up; keeps only the two, which are there anyway."""

    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        flat, gate, up = (t.flatten(0, -2) for t in (out, gate, up))
        for part in parts(*flat.shape):
            torch.mul(F.silu(gate[part]), up[part], out=flat[part])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        gate, up = (t.flatten(0, -2) for t in ctx.saved_tensors)
        shape, grad = grad.shape, grad.flatten(0, -2)
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        for part in parts(*gate.shape):
            torch.mul(grad[part], F.silu(gate[part]), out=grad_up[part])
            grad_gate[part] = torch.ops.aten.silu_backward(grad[part] * up[part], gate[part])
        return grad_gate.view(shape), grad_up.view(shape)


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) ⊙ up, [..., hidden]."""
    return _Gated.apply(gate, up)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """`rope.rotate` of x [heads, T, head_dim] into `out`."""
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    torch.sub(first * cos, second * sin, out=out[..., :half])
    torch.add(second * cos, first * sin, out=out[..., half : 2 * half])
    out[..., 2 * half :] = x[..., 2 * half :]


class _RotatedHeads(torch.autograd.Function):
    """Text by text; the gradient is turned back by the same angles, so nothing is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.angles = cos, sin
        out = x.new_empty(x.transpose(1, 2).shape)
        for mine, turned in zip(x.transpose(1, 2), out, strict=True):
            _turn(mine, cos, sin, turned)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        cos, sin = ctx.angles
        out = grad.new_empty(grad.transpose(1, 2).shape)
        for mine, turned in zip(grad, out.transpose(1, 2), strict=True):
            _turn(mine, cos, -sin, turned)
        return out, None, None


def rotated_heads(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rope.rotate` of x [B, T, heads, head_dim] -> [B, heads, T, head_dim]. cos, sin: [T, rope_dims/2]."""
    return _RotatedHeads.apply(x, cos, sin)
