"""Causal attention on a CPU with a gradient of its own.

Forward is PyTorch's. Its backward takes six times as long there, in small products; here these are large ones, over a
block of queries of all texts and heads, with one loop between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fused import fused

#: queries of a block: keys behind its last one are not looked at
_QUERIES = 128


@fused
def _score_gradients(
    scores: Tensor, above: Tensor, total: Tensor, along: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Probabilities, and the gradient of scores, for `above`, that of probabilities; both in above's dtype.

    [n, group, queries, keys] each; the queries are the last ones of the keys. total, along: [n, group, queries, 1], the
    logarithm of a row's sum of exp, and Σ probabilities ⊙ above, so that nothing is left to be summed here.
    """
    queries, keys = scores.shape[-2:]
    place = torch.arange(queries, device=scores.device)[:, None] + (keys - queries)
    behind = torch.arange(keys, device=scores.device) > place
    p = torch.where(behind, 0.0, (scores * scale - total).exp())
    grad = p * (above.to(p.dtype) - along) * scale
    return p.to(above.dtype), grad.to(above.dtype)


class _CausalAttention(torch.autograd.Function):
    """Keeps q, k, v and what comes out; probabilities are computed again."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
        ctx.save_for_backward(q, k, v, y, total)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        q, k, v, y, total = ctx.saved_tensors
        batch, heads, tokens, size = k.shape
        wider = torch.promote_types(k.dtype, torch.float32)
        along = (y.to(wider) * grad).sum(-1)  # Σ p ⊙ (grad vᵀ) = (Σ p v) grad
        k, v = k.reshape(-1, tokens, size), v.reshape(-1, tokens, size)
        # heads that share keys are further queries of one head
        q, grad = (x.reshape(len(k), -1, tokens, size) for x in (q, grad))
        total, along = (x.reshape(len(k), -1, tokens, 1) for x in (total, along))
        wide = k.to(wider)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros_like(wide), torch.zeros_like(wide)
        for first in range(0, tokens, _QUERIES):
            last = min(first + _QUERIES, tokens)
            queries, above = (x[:, :, first:last].flatten(1, 2) for x in (q, grad))
            scores = queries.to(wide.dtype) @ wide[:, :last].mT
            shape = len(k), -1, last - first, last
            rows = (x[:, :, first:last] for x in (total, along))
            p, ds = _score_gradients(scores.view(shape), (above @ v[:, :last].mT).view(shape), *rows, size**-0.5)
            p, ds = p.flatten(1, 2), ds.flatten(1, 2)
            grad_v[:, :last].add_(p.mT @ above)
            grad_k[:, :last].add_(ds.mT @ queries)
            grad_q[:, :, first:last] = (ds @ k[:, :last]).view(len(k), -1, last - first, size)
        grad_k, grad_v = (x.to(k.dtype).view(batch, heads, tokens, size) for x in (grad_k, grad_v))
        return grad_q.view(batch, -1, tokens, size), grad_k, grad_v


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q: [B, heads, T, head_dim]; k, v: [B, kv_heads, T, head_dim] -> [B, heads, T, head_dim]."""
    return _CausalAttention.apply(q, k, v)
