"""Causal attention on a CPU with a gradient of its own.

Forward is PyTorch's. Its backward takes six times as long there, in small products; here these are large ones, over a
block of queries of all texts and heads, with one loop between them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .fused import fused

#: queries of a block: keys behind its last one are not looked at
_QUERIES = 128


@fused
def _score_gradients(scores: Tensor, above: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Probabilities, and the gradient of scores, for `above`, that of probabilities; both in above's dtype.

    [n, group, queries, keys] each; the queries are the last ones of the keys.
    """
    queries, keys = scores.shape[-2:]
    place = torch.arange(queries, device=scores.device)[:, None] + (keys - queries)
    behind = torch.arange(keys, device=scores.device) > place
    p = (scores * scale).masked_fill(behind, float("-inf")).softmax(-1)
    wide = above.to(p.dtype)
    grad = p * (wide - (p * wide).sum(-1, keepdim=True)) * scale
    return p.to(above.dtype), grad.to(above.dtype)


class _CausalAttention(torch.autograd.Function):
    """Keeps q, k and v; probabilities are computed again."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        q, k, v = ctx.saved_tensors
        batch, heads, tokens, size = k.shape
        k, v = k.reshape(-1, tokens, size), v.reshape(-1, tokens, size)
        # heads that share keys are further queries of one head
        q, grad = (x.reshape(len(k), -1, tokens, size) for x in (q, grad))
        wide = k.to(torch.promote_types(k.dtype, torch.float32))
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros_like(wide), torch.zeros_like(wide)
        for first in range(0, tokens, _QUERIES):
            last = min(first + _QUERIES, tokens)
            queries, above = (x[:, :, first:last].flatten(1, 2) for x in (q, grad))
            scores = queries.to(wide.dtype) @ wide[:, :last].mT
            shape = len(k), -1, last - first, last
            p, ds = _score_gradients(scores.view(shape), (above @ v[:, :last].mT).view(shape), size**-0.5)
            p, ds = p.flatten(1, 2), ds.flatten(1, 2)
            grad_v[:, :last] += p.mT @ above
            grad_k[:, :last] += ds.mT @ queries
            grad_q[:, :, first:last] = (ds @ k[:, :last]).view(len(k), -1, last - first, size)
        grad_k, grad_v = (x.to(k.dtype).view(batch, heads, tokens, size) for x in (grad_k, grad_v))
        return grad_q.view(batch, -1, tokens, size), grad_k, grad_v


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q: [B, heads, T, head_dim]; k, v: [B, kv_heads, T, head_dim] -> [B, heads, T, head_dim]."""
    return _CausalAttention.apply(q, k, v)
