"""What a layer computes between its products, on a CPU: each as one loop over memory, forward and backward.

Written in PyTorch, a norm or a gate is a chain of five to ten operations that each read and write all activations, and on
a CPU that is all that they cost. `fused` has such a chain compiled into one loop; autograd then keeps nothing of what lies
between. The plain way stands where these are called, and is taken for few tokens and on other devices.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: from so many numbers on one loop is worth the time that compiling takes
LEAST_NUMBERS = 1 << 17

#: whether this machine can compile, once it is known
_usable: bool | None = None


def is_large(x: Tensor) -> bool:
    """Whether x is so large, and where it is, that the functions of this file are worth it."""
    return x.device.type == "cpu" and x.numel() >= LEAST_NUMBERS and not torch.compiler.is_compiling()


def fused(function: Callable) -> Callable:
    """`function` of tensors, compiled for any sizes when it is first called with large ones on a CPU.

    Without a C++ compiler it runs as it is written, which gives the same up to rounding.
    """
    compiled: list[Callable] = []

    @functools.wraps(function)
    def call(*args):
        global _usable
        if _usable is False or not any(isinstance(arg, Tensor) and is_large(arg) for arg in args):
            return function(*args)
        if _usable and compiled:
            return compiled[0](*args)
        try:
            if not compiled:
                # or PyTorch starts processes of its own, one a core, which outlive a kill
                os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
                # rounded to bf16 wherever the function is: without that losses of a student far from its teacher were
                # 0.4 % off
                compiled.append(torch.compile(function, dynamic=True, options={"emulate_precision_casts": True}))
            made = compiled[0](*args)
            _usable = True
            return made
        except Exception as problem:  # of every kind: no compiler, one that is too old, no headers
            _usable = False
            print(f"onebit_distill: slower, since nothing can be compiled here ({type(problem).__name__})", file=sys.stderr)
            return function(*args)

    call.plain = function
    return call


@fused
def _norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return ((wide * scale).to(x.dtype) * weight.to(x.dtype)).to(dtype), scale


@fused
def _norm_gradients(x: Tensor, weight: Tensor, scale: Tensor, beside: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    normed, above, wide_weight = x.float() * scale, grad.float(), weight.float()
    above_normed = above * normed
    # d(x/rms)/dx takes out of the gradient what would only make x longer
    along = (above_normed * wide_weight).mean(-1, keepdim=True)
    return (beside + (above * wide_weight - normed * along) * scale).to(x.dtype), above_normed.sum(0)


class _NormedBranch(torch.autograd.Function):
    """x as it is, and x / rms(x) ⊙ weight in `dtype`: one function, so that the gradients of both are added on the way."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        normed, scale = _norm(x.flatten(0, -2), weight, eps, dtype)
        ctx.save_for_backward(x, weight, scale)
        return x.view_as(x), normed.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, beside: Tensor, grad: Tensor):
        x, weight, scale = ctx.saved_tensors
        grad_x, grad_weight = _norm_gradients(
            x.flatten(0, -2), weight, scale, beside.flatten(0, -2), grad.flatten(0, -2)
        )
        return grad_x.view_as(x), grad_weight.to(weight.dtype), None, None


def normed_branch(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x and its RMSNorm in `dtype`, both [..., dim]."""
    return _NormedBranch.apply(x, weight, eps, dtype)


@fused
def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) ⊙ up, without a gradient."""
    return F.silu(gate) * up


@fused
def gate_gradients(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of gate and up, for what comes from behind their product; and that product, which costs nothing more here."""
    wide, above = gate.to(torch.promote_types(gate.dtype, torch.float32)), grad
    share = wide.sigmoid()
    above = above.to(wide.dtype)
    grad_gate = (above * up * share * (1 + wide * (1 - share))).to(gate.dtype)
    return grad_gate, (above * wide * share).to(up.dtype), (wide * share).to(gate.dtype) * up


class _Gated(torch.autograd.Function):
    """silu(gate) ⊙ up; keeps only the two, which are there anyway."""

    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gated(gate, up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        return gate_gradients(*ctx.saved_tensors, grad)[:2]


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) ⊙ up, [..., hidden]."""
    return _Gated.apply(gate, up)


@fused
def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


class _Rotated(torch.autograd.Function):
    """The gradient is turned back by the same angles, so nothing is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.angles = cos, sin
        return _turn(x, cos, sin)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        cos, sin = ctx.angles
        return _turn(grad, cos, -sin), None, None


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rope.rotate`: x [B, T, heads, head_dim]; cos, sin: [T, 1, rope_dims/2]."""
    return _Rotated.apply(x, cos, sin)
