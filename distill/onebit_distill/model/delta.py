"""Mixing of tokens by a gated delta rule (Gated DeltaNet, arXiv 2412.06464) in the place of attention.

Each value head has a state S [k_dim, v_dim]. A token decays it, corrects what it answers to the token's key towards the
token's value, and reads it with the query:
    S = a S;   S = S + k (b (v - Sᵀ k))ᵀ;   o = Sᵀ q
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Step
from .config import LlamaConfig
from .linear import LinearFactory, linear_of
from .norm import RMSNorm

#: tokens that are computed together; the states between them are never there
CHUNK = 64

#: in the root of the lengths by which queries and keys are divided
_EPS = 1e-6


class _Filters(nn.Module):
    """Weights of a causal convolution of each channel by itself, [channels, 1, tokens], the oldest token first."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, tokens), 1 / tokens))


def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _EPS)


def _chunk(state: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Some tokens at once: what they read, and the state behind them.

    With c_t the sum of the logarithms of decays up to t, the corrections d_t of all tokens solve
        d_t + b_t Σ_{i<t} exp(c_t - c_i) (k_t k_i) d_i = b_t (v_t - exp(c_t) Sᵀ k_t),
    a triangular system. state: [B, heads, k_dim, v_dim]; q, k: [B, heads, T, k_dim]; v: [B, heads, T, v_dim]; decay
    (logarithms), beta: [B, heads, T].
    """
    tokens = q.shape[2]
    total = decay.cumsum(-1)
    until = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril()
    # masked before exp: above the diagonal the differences are positive and may be large
    kept = (total[..., :, None] - total[..., None, :]).masked_fill(~until, float("-inf")).exp()
    there = total.exp()[..., None]
    beside = (beta[..., None] * kept * (k @ k.mT)).tril(-1)
    wanted = beta[..., None] * (v - there * (k @ state))
    unit = torch.eye(tokens, device=q.device)
    corrections = torch.linalg.solve_triangular(unit + beside, wanted, upper=False, unitriangular=True)
    out = there * (q @ state) + (kept * (q @ k.mT)) @ corrections
    left = (total[..., -1:] - total).exp()[..., None]
    return out, total[..., -1, None, None].exp() * state + (left * k).mT @ corrections


class DeltaNet(nn.Module):
    """Parameter names are Hugging Face's of Qwen3.5. A cache's tokens have to come in order, from position 0 on."""

    def __init__(self, config: LlamaConfig, layer: int, factory: LinearFactory) -> None:
        super().__init__()
        self.layer, self.order = layer, config.delta_head_order
        self.k_heads, self.v_heads = config.delta_k_heads, config.delta_v_heads
        self.k_dim, self.v_dim = config.delta_k_dim, config.delta_v_dim
        self.in_proj_qkv = linear_of(config, layer, "w_qkv", factory)
        self.in_proj_z = linear_of(config, layer, "w_z", factory)
        self.in_proj_b = linear_of(config, layer, "w_beta", factory)
        self.in_proj_a = linear_of(config, layer, "w_alpha", factory)
        self.conv1d = _Filters(config.delta_channels, config.delta_conv)
        #: softplus is multiplied by minus its exponential
        self.A_log = nn.Parameter(torch.zeros(self.v_heads))
        self.dt_bias = nn.Parameter(torch.ones(self.v_heads))
        self.norm = RMSNorm(self.v_dim, config.norm_eps)
        self.out_proj = linear_of(config, layer, "w_out", factory)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        batch, tokens, _ = x.shape
        state = None if step.cache is None else step.cache.recurrent(self.layer, step.positions)
        mixed = self.in_proj_qkv(x).float().mT
        filters = self.conv1d.weight.float()
        before = mixed.new_zeros(batch, mixed.shape[1], filters.shape[2] - 1) if state is None else state[0]
        seen = torch.cat((before, mixed), dim=-1)
        q, k, v = self._heads(F.silu(F.conv1d(seen, filters, groups=filters.shape[0])).mT)
        decay = -self.A_log.float().exp() * F.softplus(self.in_proj_a(x).float() + self.dt_bias.float())
        beta = self.in_proj_b(x).float().sigmoid()
        start = q.new_zeros(batch, self.v_heads, self.k_dim, self.v_dim) if state is None else state[1]
        y, end = self._recur(start, q, k, v, decay.mT, beta.mT)
        if step.cache is not None:
            step.cache.keep_recurrent(self.layer, seen[..., tokens:], end)
        gate = self.in_proj_z(x).view(batch, tokens, self.v_heads, self.v_dim)
        y = self.norm(y.transpose(1, 2)) * F.silu(gate.float())
        return self.out_proj(y.flatten(2).to(x.dtype))

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each value head, [B, v_heads, T, …]. mixed: [B, T, channels]."""
        width, share = self.k_heads * self.k_dim, self.v_heads // self.k_heads
        q, k, v = mixed.split((width, width, self.v_heads * self.v_dim), dim=-1)
        q, k = (_normed(part.unflatten(-1, (self.k_heads, self.k_dim))).transpose(1, 2) for part in (q, k))
        if self.order == "grouped":
            q, k = q.repeat_interleave(share, 1), k.repeat_interleave(share, 1)
        else:
            q, k = q.repeat(1, share, 1, 1), k.repeat(1, share, 1, 1)
        return q * self.k_dim**-0.5, k, v.unflatten(-1, (self.v_heads, self.v_dim)).transpose(1, 2)

    def _recur(self, state: Tensor, *streams: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk by chunk. streams: q, k, v, decay and beta, tokens in their dimension 2. In float32 under autocast too:
        a state lives for the whole text."""
        out = []
        with torch.autocast(state.device.type, enabled=False):
            for parts in zip(*(stream.split(CHUNK, dim=2) for stream in streams), strict=True):
                read, state = _chunk(state, *parts)
                out.append(read)
        return torch.cat(out, dim=2), state
