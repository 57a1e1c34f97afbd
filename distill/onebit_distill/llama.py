"""Llama and Qwen3 with linears of any kind. Parameter names are Hugging Face's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .config import LlamaConfig
from .errors import DistillError
from .linear import Dense, LinearFactory, LinearSpec
from .rope import rope_table, rotate


def dense_factory(spec: LinearSpec) -> nn.Module:
    return Dense(spec.in_features, spec.out_features, spec.bias)


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # see Dense
            super().reset_parameters()


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


class KVCache:
    """Keys and values of a batch, allocated once: [layers, B, kv_heads, capacity, head_dim] each.

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
        shape = (config.n_layers, batch, config.n_kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.capacity = capacity
        self.limit = capacity
        self.length = 0

    def reset(self) -> None:
        """Forgets everything without freeing or clearing: what was written is never read before it is overwritten."""
        self.length, self.limit = 0, self.capacity

    def extend(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k, v [B, kv_heads, T, head_dim] at positions [T] or [B, T]; returns all up to `limit`."""
        for store, new in ((self.keys[layer], k), (self.values[layer], v)):
            if positions.dim() == 1:
                store.index_copy_(2, positions, new.to(store.dtype))
            else:
                index = positions[:, None, :, None].expand_as(new)
                store.scatter_(2, index, new.to(store.dtype))
        return self.keys[layer, :, :, : self.limit], self.values[layer, :, :, : self.limit]


@dataclass
class _Step:
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
        self.q_proj = _linear(config, layer, "wq", factory)
        self.k_proj = _linear(config, layer, "wk", factory)
        self.v_proj = _linear(config, layer, "wv", factory)
        self.o_proj = _linear(config, layer, "wo", factory)
        qk_norm = config.architecture == "qwen3"
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if qk_norm else None

    def forward(self, x: Tensor, step: _Step) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_proj(x).view(batch, tokens, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(batch, tokens, self.n_kv_heads, self.head_dim)
        v = self.v_proj(x).view(batch, tokens, self.n_kv_heads, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        cos, sin = step.cos.to(q.dtype), step.sin.to(q.dtype)
        q, k = rotate(q.transpose(1, 2), cos, sin), rotate(k.transpose(1, 2), cos, sin)
        if step.cache is not None:
            k, v = step.cache.extend(self.layer, k, v, step.positions)
        y = self._attend(q.to(k.dtype), k, v, step).to(q.dtype)
        return self.o_proj(y.transpose(1, 2).reshape(batch, tokens, -1))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, step: _Step) -> Tensor:
        if step.attentions is not None:
            return self._attend_openly(q, k, v, step)
        grouped = self.n_heads != self.n_kv_heads
        if step.mask is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        if grouped and q.shape[2] == 1:
            # The heads that share keys become queries of one head: no copy of the cache, which is all that costs here.
            together = q.view(q.shape[0], self.n_kv_heads, -1, self.head_dim)
            return F.scaled_dot_product_attention(together, k, v, attn_mask=step.mask).reshape(q.shape)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=step.mask, enable_gqa=grouped)

    def _attend_openly(self, q: Tensor, k: Tensor, v: Tensor, step: _Step) -> Tensor:
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


class FeedForward(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int, factory: LinearFactory) -> None:
        super().__init__()
        self.gate_proj = _linear(config, layer, "w1", factory)
        self.up_proj = _linear(config, layer, "w3", factory)
        self.down_proj = _linear(config, layer, "w2", factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer; the unit of gradient checkpointing, of FSDP and of block-wise fitting."""

    def __init__(self, config: LlamaConfig, layer: int, factory: LinearFactory) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config, layer, factory)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config, layer, factory)

    def forward(self, x: Tensor, step: _Step) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), step)
        return x + self.mlp(self.post_attention_layernorm(x))


def _linear(config: LlamaConfig, layer: int, role: str, factory: LinearFactory) -> nn.Module:
    rows, cols = config.linear_shape(role)
    return factory(LinearSpec(layer, role, in_features=cols, out_features=rows, bias=role in config.biases))


class _Body(nn.Module):
    def __init__(self, config: LlamaConfig, factory: LinearFactory) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, layer, factory) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)


@dataclass
class LlamaOutput:
    #: [B, T, V], [B, 1, V] or None, as `logits` asked
    logits: Tensor | None
    #: Hugging Face's meaning: [0] the embeddings, [i] the output of layer i, [n_layers] the state behind the final norm
    hidden_states: list[Tensor] | None = None
    #: of each layer, [B, heads, T, S]
    attentions: list[Tensor] | None = None


class Llama(nn.Module):
    """A model whose seven linears per layer come from `linear_factory` (default: dense)."""

    def __init__(self, config: LlamaConfig, linear_factory: LinearFactory = dense_factory) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config, linear_factory)
        self.lm_head = None if config.tied_head else Dense(config.dim, config.vocab_size, bias=False)
        #: recompute each block in the backward pass instead of keeping its activations
        self.gradient_checkpointing = False
        cos, sin = rope_table(config, config.context_length)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def _apply(self, fn, recurse=True):
        """Moves like any module, but the angles stay float32: bfloat16 cannot tell position 257 from 258."""
        cos, sin = self.rope_cos, self.rope_sin
        super()._apply(fn, recurse)
        if self.rope_cos.dtype != torch.float32 and cos.device.type != "meta":
            self.rope_cos, self.rope_sin = cos.to(self.rope_cos.device), sin.to(self.rope_sin.device)
        return self

    def init_weights(self, std: float = 0.02, generator: torch.Generator | None = None) -> Llama:
        """Normal start for training from nothing; what writes into the residual is smaller by sqrt(2 n_layers) (GPT-2).

        Matrices only, of any kind of linear; biases become 0, norms and scales stay."""
        into_residual = std * (2 * self.config.n_layers) ** -0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
                    parameter.normal_(0, into_residual if narrow else std, generator=generator)
                elif name.endswith(".bias"):
                    parameter.zero_()
        return self

    def forward(
        self,
        ids: Tensor,
        hidden_states: bool = False,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        *,
        attentions: bool = False,
        logits: str = "all",
    ) -> LlamaOutput:
        """ids: int64 [B, T]. positions: int64 [T] or [B, T], absolute; default: 0…T-1, or behind what the cache holds.
        Positions without a cache only turn the rotation; tokens then see those before them in `ids`.

        logits: all | last (of the last token) | none. Raises DistillError ERR_CONTEXT_LENGTH.
        """
        step = self._step(ids, cache, positions)
        step.attentions = [] if attentions else None
        x = self.model.embed_tokens(ids)
        states = [x]
        for layer, block in enumerate(self.model.layers):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, step, use_reentrant=False)
            else:
                x = block(x, step)
            if hidden_states and layer + 1 < self.config.n_layers:
                states.append(x)
        if logits == "last":
            x = x if hidden_states else x[:, -1:]
        x = self.model.norm(x)
        states.append(x)
        if logits == "last":
            x = x[:, -1:]
        out = None if logits == "none" else self.head(x)
        return LlamaOutput(out, states if hidden_states else None, step.attentions)

    def head(self, x: Tensor) -> Tensor:
        """Logits of states behind the final norm: [..., dim] -> [..., V]."""
        return F.linear(x, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(x)

    def block_step(self, tokens: int) -> _Step:
        """What `model.layers[i](x, step)` wants when one block is run alone on x [B, tokens, dim]."""
        self._check_length(tokens)
        return _Step(self.rope_cos[:tokens], self.rope_sin[:tokens])

    def linears(self) -> dict[str, nn.Module]:
        """The seven linears of every layer by their full name, such as `model.layers.0.self_attn.q_proj`."""
        found = {}
        for index, block in enumerate(self.model.layers):
            for part in ("self_attn", "mlp"):
                for name, module in getattr(block, part).named_children():
                    if name.endswith("_proj"):
                        found[f"model.layers.{index}.{part}.{name}"] = module
        return found

    def _check_length(self, tokens: int) -> None:
        if tokens > self.config.context_length:
            message = f"{tokens} tokens do not fit the model's context of {self.config.context_length}"
            raise DistillError("ERR_CONTEXT_LENGTH", message, "Use shorter sequences.")

    def _step(self, ids: Tensor, cache: KVCache | None, positions: Tensor | None) -> _Step:
        tokens = ids.shape[1]
        if cache is None and positions is None:
            return self.block_step(tokens)
        if positions is None:
            self._check_length(cache.length + tokens)
            if cache.length + tokens > cache.capacity:
                message = f"{cache.length + tokens} tokens do not fit a cache of {cache.capacity}"
                raise DistillError("ERR_CONTEXT_LENGTH", message)
            positions = torch.arange(cache.length, cache.length + tokens, device=ids.device)
            cache.length += tokens
            cache.limit = cache.length
        cos, sin = self.rope_cos[positions], self.rope_sin[positions]
        if positions.dim() == 2:
            cos, sin = cos[:, None], sin[:, None]
        if cache is None:
            return _Step(cos, sin, positions)
        slots = torch.arange(cache.limit, device=ids.device)
        mask = slots <= positions[..., None]
        return _Step(cos, sin, positions, mask if positions.dim() == 1 else mask[:, None], cache)
