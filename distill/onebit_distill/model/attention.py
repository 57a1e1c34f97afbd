"""Attention of one layer, and the cache of keys and values that it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DistillError
from .causal import causal_attention
from .config import LlamaConfig
from .fused import is_large, rotated
from .linear import LinearFactory, linear_of, products
from .norm import RMSNorm, norm_of
from .rope import rotate


class KVCache:
    """Keys and values of a batch, allocated once: [layers, B, kv_heads, capacity, head_dim] each, of the layers that
    have attention; of the others their recurrent states, which begin anew at position 0.

    Called without positions, `Llama.forward` appends at `length` and reads only what is filled (eager decoding). Called
    with a tensor of positions it never looks at Python numbers and all shapes stay the same from step to step, so a
    step can be captured as a CUDA graph; `limit` may then be lowered to bound what is read.
    """

    def __init__(
        self, config: LlamaConfig, batch: int, capacity: int, device: torch.device | str = "cpu", dtype=torch.float32
    ) -> None:
        if capacity > config.context_length:
            message = f"A cache of {capacity} positions is longer than the model's context of {config.context_length}"
            raise DistillError("ERR_CONTEXT_LENGTH", message)
        recurrent = config.delta_layers
        with_keys = [layer for layer in range(config.n_layers) if layer not in recurrent]
        #: which of the stored ones a layer's are
        self._place = {layer: i for layers in (with_keys, recurrent) for i, layer in enumerate(layers)}
        shape = (len(with_keys), batch, config.n_kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        # the channels before the next token, as the convolution reads them, and the states: float32 whatever dtype is
        heads = (config.delta_v_heads, config.delta_k_dim, config.delta_v_dim)
        before = (config.delta_channels, max(config.delta_conv - 1, 0))
        self._before = torch.zeros(len(recurrent), batch, *before, device=device)
        self._states = torch.zeros(len(recurrent), batch, *heads, device=device)
        self.capacity = capacity
        self.limit = capacity
        self.length = 0

    def reset(self) -> None:
        """Forgets everything without freeing or clearing: what was written is never read before it is overwritten."""
        self.length, self.limit = 0, self.capacity

    def extend(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k, v [B, kv_heads, T, head_dim] at positions [T] or [B, T]; returns all up to `limit`."""
        place = self._place[layer]
        for store, new in ((self.keys[place], k), (self.values[place], v)):
            if positions.dim() == 1:
                store.index_copy_(2, positions, new.to(store.dtype))
            else:
                index = positions[:, None, :, None].expand_as(new)
                store.scatter_(2, index, new.to(store.dtype))
        return self.keys[place, :, :, : self.limit], self.values[place, :, :, : self.limit]

    def recurrent(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The last raw channels, [B, channels, conv - 1], and the state, [B, v_heads, k_dim, v_dim], that tokens at
        these positions, [T] or [B, T], go on from; zeros where they begin at 0."""
        place, goes_on = self._place[layer], (positions[..., 0] > 0).reshape(-1, 1, 1)
        before = torch.where(goes_on, self._before[place], 0.0)
        return before, torch.where(goes_on[..., None], self._states[place], 0.0)

    def keep_recurrent(self, layer: int, before: Tensor, state: Tensor) -> None:
        self._before[self._place[layer]].copy_(before)
        self._states[self._place[layer]].copy_(state)


@dataclass
class Step:
    """What all layers of one forward pass share."""

    cos: Tensor
    sin: Tensor
    positions: Tensor | None = None
    #: True where a query may look, [T, S] or [B, 1, T, S]; None: causal within the T tokens
    mask: Tensor | None = None
    cache: KVCache | None = None
    #: collects attention probabilities when it is a list
    attentions: list[Tensor] | None = None


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int, factory: LinearFactory) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        self.q_proj = linear_of(config, layer, "wq", factory)
        self.k_proj = linear_of(config, layer, "wk", factory)
        self.v_proj = linear_of(config, layer, "wv", factory)
        self.o_proj = linear_of(config, layer, "wo", factory)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        width = config.n_heads * config.head_dim
        #: of all heads together, in front of o_proj
        self.attn_sub_norm = norm_of(config, width) if config.attention_inner_norm else None
        self.output_gate = config.output_gate

    def forward(self, x: Tensor, step: Step) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = products(x, self.q_proj, self.k_proj, self.v_proj)
        q, gate = q.view(batch, tokens, self.n_heads, -1), None
        if self.output_gate:
            q, gate = q.chunk(2, dim=-1)
        k = k.view(batch, tokens, self.n_kv_heads, self.head_dim)
        v = v.view(batch, tokens, self.n_kv_heads, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        cos, sin = step.cos.to(q.dtype), step.sin.to(q.dtype)
        if step.positions is None and is_large(k):
            q, k = (rotated(x, cos[:, None], sin[:, None]).transpose(1, 2) for x in (q, k))
        else:
            q, k = rotate(q.transpose(1, 2), cos, sin), rotate(k.transpose(1, 2), cos, sin)
        if step.cache is not None:
            k, v = step.cache.extend(self.layer, k, v, step.positions)
        y = self._attend(q.to(k.dtype), k, v, step).to(q.dtype).transpose(1, 2)
        if gate is not None:
            y = y * gate.sigmoid()
        y = y.reshape(batch, tokens, -1)
        return self.o_proj(y if self.attn_sub_norm is None else self.attn_sub_norm(y))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        if step.attentions is not None:
            return self._attend_openly(q, k, v, step)
        grouped = self.n_heads != self.n_kv_heads
        if step.mask is None and is_large(q) and torch.is_grad_enabled() and q.dtype == k.dtype == v.dtype:
            return causal_attention(q, k, v)
        if step.mask is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        if grouped and q.shape[2] == 1:
            # The heads that share keys become queries of one head: no copy of the cache, which is all that costs here.
            together = q.view(q.shape[0], self.n_kv_heads, -1, self.head_dim)
            return F.scaled_dot_product_attention(together, k, v, attn_mask=step.mask).reshape(q.shape)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=step.mask, enable_gqa=grouped)

    def _attend_openly(self, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        """The same with probabilities that can be looked at, in float32."""
        group = self.n_heads // self.n_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mask = step.mask
        if mask is None:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        scores = (q @ k.transpose(-1, -2)).float() * self.head_dim**-0.5
        probabilities = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        step.attentions.append(probabilities)
        return probabilities.to(v.dtype) @ v
