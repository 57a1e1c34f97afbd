"""What Llama and the models that descend from it share: their names, and most of what their configs say."""

from __future__ import annotations

import math
from typing import Any

from ...errors import DistillError
from ...model.config import HF_LINEARS, ROLES, LlamaConfig
from ..gguf_keys import GgufKeys, shortest
from ..gguf_rope import gguf_rope
from ..hf_rope import hf_rope
from .architecture import Names, unsupported

_LAYERS = "model.layers.*"

#: our own
HF_NAMES: Names = {
    "model.embed_tokens": "model.embed_tokens",
    **{
        f"{_LAYERS}.{part}": f"{_LAYERS}.{part}"
        for part in (
            "input_layernorm",
            *HF_LINEARS.values(),
            "self_attn.q_norm",
            "self_attn.k_norm",
            "self_attn.attn_sub_norm",
            "post_attention_layernorm",
            "mlp.ffn_sub_norm",
        )
    },
    "model.norm": "model.norm",
    "lm_head": "lm_head",
}

_GGUF_LINEARS = {
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "w1": "ffn_gate",
    "w2": "ffn_down",
    "w3": "ffn_up",
}

GGUF_NAMES: Names = {
    "model.embed_tokens": "token_embd",
    f"{_LAYERS}.input_layernorm": "blk.*.attn_norm",
    **{f"{_LAYERS}.{HF_LINEARS[role]}": f"blk.*.{name}" for role, name in _GGUF_LINEARS.items()},
    f"{_LAYERS}.self_attn.q_norm": "blk.*.attn_q_norm",
    f"{_LAYERS}.self_attn.k_norm": "blk.*.attn_k_norm",
    f"{_LAYERS}.self_attn.attn_sub_norm": "blk.*.attn_sub_norm",
    f"{_LAYERS}.post_attention_layernorm": "blk.*.ffn_norm",
    f"{_LAYERS}.mlp.ffn_sub_norm": "blk.*.ffn_sub_norm",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def is_table(name: str) -> bool:
    """A table that follows from the config, as old checkpoints have it."""
    return name.endswith(".rotary_emb.inv_freq")


def attention_biases(root: dict[str, Any]) -> tuple[str, ...]:
    """`attention_bias` and `mlp_bias`."""
    attention = ROLES[:4] if root.get("attention_bias") is True else ()
    return (*attention, *(ROLES[4:] if root.get("mlp_bias") is True else ()))


def read_hf(
    root: dict[str, Any],
    *,
    context: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    activations: tuple[str, ...] = ("silu", "swish"),
    **described: Any,
) -> LlamaConfig:
    """Sizes and rotation of a config.json of the family; `described` is what this architecture adds.

    context, kv_heads and head_dim are what transformers takes where the file does not say them; without one, as many
    heads for keys as for queries, and dim / heads. activations: those of `hidden_act` that this architecture has.
    """
    act = root.get("hidden_act") or "silu"
    # what changes the computation but not the tensors: ignoring it would be silently wrong
    if act not in activations:
        raise unsupported(f"{root['model_type']} with hidden_act {act!r}")
    heads, positions = root["num_attention_heads"], root.get("max_position_embeddings") or context
    theta, scaling, partial = hf_rope(root, positions)
    if partial != 1:
        raise DistillError("ERR_UNSUPPORTED_ROPE", f"config.json: partial_rotary_factor {partial!r}")
    return LlamaConfig(
        vocab_size=root["vocab_size"],
        dim=root["hidden_size"],
        hidden_dim=root["intermediate_size"],
        n_layers=root["num_hidden_layers"],
        n_heads=heads,
        n_kv_heads=root.get("num_key_value_heads", kv_heads) or heads,
        head_dim=root.get("head_dim") or head_dim or root["hidden_size"] // heads,
        context_length=positions,
        norm_eps=root.get("rms_norm_eps") or 1e-6,
        rope_theta=theta,
        rope_scaling=scaling,
        tied_head=root.get("tie_word_embeddings") is True,
        **described,
    )


def hf_window(root: dict[str, Any]) -> int:
    """A window that is left out has 4096 positions; null means that there is none."""
    return root.get("sliding_window", 4096) or 0


def qwen_window(root: dict[str, Any]) -> int:
    """A Qwen has a window if it says so, in the layers from `max_window_layers` on or as `layer_types` lists them; one
    in some layers only is another computation."""
    window = hf_window(root) if root.get("use_sliding_window") is True else 0
    layers = root["num_hidden_layers"]
    full = root.get("max_window_layers", 28) if window else layers
    types = root.get("layer_types") or ["full_attention"] * min(full, layers) + ["sliding_attention"] * (layers - full)
    if set(types) == {"full_attention"}:
        return 0
    if window and set(types) == {"sliding_attention"}:
        return window
    raise unsupported(f"{root['model_type']} with a sliding window in some of its layers")


def _check_gguf_switches(keys: GgufKeys, head_dim: int) -> None:
    """Switches of llama.cpp's loader that must be as they are in a plain model of the family."""
    keys.must_be("attention.value_length", head_dim)
    keys.must_be("attention.causal", True)
    keys.must_be("attention.scale", 0, shortest(1 / math.sqrt(head_dim)))
    for key in ("attention.clamp_kqv", "attention.max_alibi_bias", "expert_count", "expert_used_count"):
        keys.must_be(key, 0)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        keys.must_be(key, 0)
    for key in ("logit_scale", "residual_scale", "embedding_scale"):
        keys.must_be(key, 0, 1)
    keys.must_be("use_parallel_residual", False)


def _gguf_head_dim(keys: GgufKeys) -> int:
    heads, dim = keys.whole("attention.head_count"), keys.whole("embedding_length")
    return keys.whole("attention.key_length", dim // heads if heads else 0)


def read_gguf(keys: GgufKeys, *, biases: tuple[str, ...] | None = None, **described: Any) -> LlamaConfig:
    """Sizes and rotation of a GGUF file of the family; `described` is what this architecture adds.

    biases: those that must be there; None: those that are there in every layer.
    """
    keys.must_be("rope.dimension_count", _gguf_head_dim(keys))
    keys.must_be("nextn_predict_layers", 0)
    layers = keys.whole("block_count")
    if biases is None:
        biases = tuple(
            role
            for role, name in _GGUF_LINEARS.items()
            if all(keys.has_tensor(f"blk.{layer}.{name}.bias") for layer in range(layers))
        )
    return read_gguf_sizes(keys, n_layers=layers, biases=biases, **described)


def read_gguf_sizes(keys: GgufKeys, **described: Any) -> LlamaConfig:
    """Also of files that rotate a part of each head, or have layers beside those of the model: `described` has n_layers."""
    heads, head_dim, context = keys.whole("attention.head_count"), _gguf_head_dim(keys), keys.whole("context_length")
    _check_gguf_switches(keys, head_dim)
    return LlamaConfig(
        vocab_size=keys.vocab_size,
        dim=keys.whole("embedding_length"),
        hidden_dim=keys.whole("feed_forward_length"),
        n_heads=heads,
        n_kv_heads=keys.whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        context_length=context,
        norm_eps=shortest(keys.number("attention.layer_norm_rms_epsilon")),
        rope_theta=shortest(keys.number("rope.freq_base", 10000)),
        rope_scaling=gguf_rope(keys, context),
        rope_dims=keys.whole("rope.dimension_count", head_dim),
        tied_head=not keys.has_tensor("output.weight"),
        **described,
    )
