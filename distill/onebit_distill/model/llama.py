"""Llama, and every model that differs from it by features of its config, with linears of any kind.

Parameter names are Hugging Face's of Llama; what others call them is in formats/architectures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import DistillError
from .attention import Attention, KVCache, Step
from .config import HF_LINEARS, LlamaConfig
from .delta import DeltaNet
from .fused import is_large
from .linear import Dense, LinearFactory, dense_factory, gated_product, linear_of, products
from .norm import branch, norm_of
from .rope import rope_table


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # see Dense
            super().reset_parameters()


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "relu2": _relu2,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
}


class FeedForward(nn.Module):
    """gated: down(act(gate x) ⊙ up x); plain: down(act(gate x)), and there is no up."""

    def __init__(self, config: LlamaConfig, layer: int, factory: LinearFactory) -> None:
        super().__init__()
        self.gate_proj = linear_of(config, layer, "w1", factory)
        self.up_proj = linear_of(config, layer, "w3", factory) if config.feed_forward == "gated" else None
        self.down_proj = linear_of(config, layer, "w2", factory)
        #: in front of down_proj
        self.ffn_sub_norm = norm_of(config, config.hidden_dim) if config.ffn_inner_norm else None
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.up_proj is None:
            inner = self.activation(self.gate_proj(x))
        else:
            gate, up = products(x, self.gate_proj, self.up_proj)
            if self.activation is F.silu and self.ffn_sub_norm is None and is_large(gate):
                return gated_product(gate, up, self.down_proj)
            inner = self.activation(gate) * up
        return self.down_proj(inner if self.ffn_sub_norm is None else self.ffn_sub_norm(inner))


class Block(nn.Module):
    """One layer; the unit of gradient checkpointing, of FSDP and of block-wise fitting."""

    def __init__(self, config: LlamaConfig, layer: int, factory: LinearFactory) -> None:
        super().__init__()
        self.input_layernorm = norm_of(config, config.dim)
        if layer in config.delta_layers:
            self.linear_attn = DeltaNet(config, layer, factory)
        else:
            self.self_attn = Attention(config, layer, factory)
        self.post_attention_layernorm = norm_of(config, config.dim)
        self.mlp = FeedForward(config, layer, factory)
        self.parallel = config.parallel_residual

    def forward(self, x: Tensor, step: Step) -> Tensor:
        mixer = self.linear_attn if hasattr(self, "linear_attn") else self.self_attn
        x, normed = branch(self.input_layernorm, x)
        mixed = x + mixer(normed, step)
        if self.parallel:
            return mixed + self.mlp(self.post_attention_layernorm(x))
        mixed, normed = branch(self.post_attention_layernorm, mixed)
        return mixed + self.mlp(normed)


class _Body(nn.Module):
    def __init__(self, config: LlamaConfig, factory: LinearFactory) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.dim)
        rows = config.context_length + config.position_offset
        self.embed_positions = Embedding(rows, config.dim) if config.positions == "learned" else None
        self.layers = nn.ModuleList(Block(config, layer, factory) for layer in range(config.n_layers))
        self.norm = norm_of(config, config.dim)


@dataclass
class LlamaOutput:
    #: [B, T, V], [B, 1, V] or None, as `logits` asked
    logits: Tensor | None
    #: Hugging Face's meaning: [0] the embeddings, [i] the output of layer i, [n_layers] the state behind the final norm
    hidden_states: list[Tensor] | None = None
    #: of each layer that has attention, [B, heads, T, S]
    attentions: list[Tensor] | None = None
    #: behind the final norm, what the head multiplies: [B, T, dim], or [B, 1, dim] for the last token's logits
    state: Tensor | None = None


#: features of a config that are computed here
_COMPUTED = {
    "norm",
    "norm_bias",
    "positions",
    "position_offset",
    "rope_dims",
    "qk_norm",
    "attention_inner_norm",
    "window",
    "output_gate",
    "feed_forward",
    "activation",
    "ffn_inner_norm",
    "parallel_residual",
    "delta_layers",
    "delta_k_heads",
    "delta_v_heads",
    "delta_k_dim",
    "delta_v_dim",
    "delta_conv",
    "delta_head_order",
}


class Llama(nn.Module):
    """A model whose linears come from `linear_factory` (default: dense).

    Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE for a config with features that are not computed here.
    """

    def __init__(self, config: LlamaConfig, linear_factory: LinearFactory = dense_factory) -> None:
        super().__init__()
        refused = [f"{name} = {value!r}" for name, value in config.features().items() if name not in _COMPUTED]
        if refused:
            message = f"A model with {', '.join(refused)} can neither teach nor be trained"
            raise DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message, "The engine runs more kinds of models.")
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
                    narrow = name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight"))
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
        x = self.embed(ids, step.positions)
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
        return LlamaOutput(out, states if hidden_states else None, step.attentions, x)

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """What the first layer reads, [B, T, dim]. ids: int64 [B, T]; positions: [T] or [B, T], default 0…T-1."""
        x = self.model.embed_tokens(ids)
        if self.model.embed_positions is None:
            return x
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return x + self.model.embed_positions(positions + self.config.position_offset)

    def head(self, x: Tensor) -> Tensor:
        """Logits of states behind the final norm: [..., dim] -> [..., V]."""
        return F.linear(x, self.head_weight) if self.lm_head is None else self.lm_head(x)

    @property
    def head_weight(self) -> nn.Parameter:
        """[V, dim]; the embedding's where that is the head too."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def block_step(self, tokens: int) -> Step:
        """What `model.layers[i](x, step)` wants when one block is run alone on x [B, tokens, dim]."""
        self._check_length(tokens)
        cos, sin = self.rope_cos[:tokens], self.rope_sin[:tokens]
        return Step(cos, sin, mask=self._windowed(tokens, cos.device))

    def _windowed(self, tokens: int, device: torch.device) -> Tensor | None:
        """What of a whole sequence each of its positions may see, [T, T]; None: all before it, as attention does by
        itself and faster than with a mask."""
        if self.config.window == 0 or tokens <= self.config.window:
            return None
        ones = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
        return ones.tril().triu(1 - self.config.window)

    def linears(self) -> dict[str, nn.Module]:
        """The linears of every layer by their full name, such as `model.layers.0.self_attn.q_proj`."""
        return {
            f"model.layers.{index}.{HF_LINEARS[role]}": block.get_submodule(HF_LINEARS[role])
            for index, block in enumerate(self.model.layers)
            for role in self.config.roles(index)
        }

    def _check_length(self, tokens: int) -> None:
        if tokens > self.config.context_length:
            message = f"{tokens} tokens do not fit the model's context of {self.config.context_length}"
            raise DistillError("ERR_CONTEXT_LENGTH", message, "Use shorter sequences.")

    def _step(self, ids: Tensor, cache: KVCache | None, positions: Tensor | None) -> Step:
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
            return Step(cos, sin, positions, self._windowed(tokens, ids.device))
        slots = torch.arange(cache.limit, device=ids.device)
        mask = slots <= positions[..., None]
        if self.config.window > 0:
            mask &= slots > positions[..., None] - self.config.window
        return Step(cos, sin, positions, mask if positions.dim() == 1 else mask[:, None], cache)
