"""GPT-NeoX (Black et al. 2022), of which Pythia is made: attention and feed-forward read the same x, LayerNorm with a
bias before each, a part of every head rotated, and one matrix with the queries, keys and values of each head in turn."""

from __future__ import annotations

import re
from typing import Any

from ...model.config import ROLES, LlamaConfig
from ..gguf_keys import GgufKeys, shortest
from ..gguf_rope import gguf_rope
from ..hf_rope import hf_rope
from .architecture import Architecture, Gguf, HuggingFace, Names, unsupported

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

#: masks and tables of old checkpoints, which follow from the config
_IGNORED = re.compile(r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$")


def _names(layers: str, parts: dict[str, str]) -> Names:
    """parts: their names within a layer, by a word for each."""
    ours = {
        "norm1": "input_layernorm",
        "o": "self_attn.o_proj",
        "norm2": "post_attention_layernorm",
        "up": "mlp.gate_proj",
        "down": "mlp.down_proj",
    }
    fused = {f"self_attn.{one}_proj": parts["qkv"] for one in "qkv"}
    whole = {name: parts[word] for word, name in ours.items()}
    return {f"model.layers.*.{name}": f"{layers}.*.{theirs}" for name, theirs in {**fused, **whole}.items()}


_HF_NAMES: Names = {
    "model.embed_tokens": "gpt_neox.embed_in",
    **_names(
        "gpt_neox.layers",
        {
            "norm1": "input_layernorm",
            "qkv": "attention.query_key_value",
            "o": "attention.dense",
            "norm2": "post_attention_layernorm",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
    ),
    "model.norm": "gpt_neox.final_layer_norm",
    "lm_head": "embed_out",
}

_GGUF_NAMES: Names = {
    "model.embed_tokens": "token_embd",
    **_names(
        "blk",
        {
            "norm1": "attn_norm",
            "qkv": "attn_qkv",
            "o": "attn_output",
            "norm2": "ffn_norm",
            "up": "ffn_up",
            "down": "ffn_down",
        },
    ),
    "model.norm": "output_norm",
    "lm_head": "output",
}


def _config(dim: int, heads: int, **described: Any) -> LlamaConfig:
    return LlamaConfig(
        architecture="gpt_neox",
        dim=dim,
        n_heads=heads,
        n_kv_heads=heads,
        head_dim=dim // heads,
        norm="layer",
        norm_bias=True,
        feed_forward="plain",
        **described,
    )


def _read(root: dict[str, Any]) -> LlamaConfig:
    dim, heads = root["hidden_size"], root["num_attention_heads"]
    context = root.get("max_position_embeddings") or 2048
    act = root.get("hidden_act") or "gelu"
    if act not in _ACTIVATIONS:
        raise unsupported(f"gpt_neox with hidden_act {act!r}")
    # `rotary_pct` and `rotary_emb_base` of old configs are `partial_rotary_factor` and `rope_theta` of new ones
    old = {"partial_rotary_factor": root.get("rotary_pct", 0.25), "rope_theta": root.get("rotary_emb_base", 10000)}
    theta, scaling, partial = hf_rope({**old, **root}, context)
    return _config(
        dim,
        heads,
        vocab_size=root["vocab_size"],
        hidden_dim=root["intermediate_size"],
        n_layers=root["num_hidden_layers"],
        context_length=context,
        norm_eps=root.get("layer_norm_eps") or 1e-5,
        activation=_ACTIVATIONS[act],
        parallel_residual=root.get("use_parallel_residual", True) is not False,
        rope_theta=theta,
        rope_scaling=scaling,
        rope_dims=int(dim // heads * partial),
        tied_head=root.get("tie_word_embeddings") is True,
        biases=ROLES[:6] if root.get("attention_bias", True) is not False else ROLES[4:6],
    )


def _read_gguf(keys: GgufKeys) -> LlamaConfig:
    """As llama.cpp's converter writes it; a file does not say which form of GELU it is, and Pythia's is the exact one."""
    dim, heads = keys.whole("embedding_length"), keys.whole("attention.head_count")
    head_dim = dim // heads if heads else 0
    for key in ("attention.key_length", "attention.value_length"):
        keys.must_be(key, head_dim)
    for key in ("attention.clamp_kqv", "attention.max_alibi_bias"):
        keys.must_be(key, 0)
    keys.must_be("attention.head_count_kv", heads)
    keys.must_be("attention.causal", True)
    context, layers = keys.whole("context_length"), keys.whole("block_count")
    stored = {
        "wq": "attn_qkv",
        "wk": "attn_qkv",
        "wv": "attn_qkv",
        "wo": "attn_output",
        "w1": "ffn_up",
        "w2": "ffn_down",
    }
    has = lambda name: all(keys.has_tensor(f"blk.{layer}.{name}.bias") for layer in range(layers))  # noqa: E731
    return _config(
        dim,
        heads,
        vocab_size=keys.vocab_size,
        hidden_dim=keys.whole("feed_forward_length"),
        n_layers=layers,
        context_length=context,
        norm_eps=shortest(keys.number("attention.layer_norm_epsilon")),
        activation="gelu",
        parallel_residual=keys.flag("use_parallel_residual", True),
        rope_theta=shortest(keys.number("rope.freq_base", 10000)),
        rope_scaling=gguf_rope(keys, context),
        rope_dims=keys.whole("rope.dimension_count", head_dim),
        tied_head=not keys.has_tensor("output.weight"),
        biases=tuple(role for role, name in stored.items() if has(name)),
    )


GPT_NEOX = Architecture(
    title="GPT-NeoX",
    hugging_face=HuggingFace(
        model_types=("gpt_neox",),
        names=_HF_NAMES,
        prefix="gpt_neox.",
        read=_read,
        fused="head",
        is_ignored=lambda name: bool(_IGNORED.search(name)),
    ),
    gguf=Gguf(architectures=("gptneox",), names=_GGUF_NAMES, read=_read_gguf, fused="matrix"),
)
