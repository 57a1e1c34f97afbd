"""OPT (Zhang et al. 2022, arXiv 2205.01068), from which the OneBit paper trains students: LayerNorm with a bias before
each part, learned positions from row 2 of their table on, ReLU between two matrices, biases everywhere."""

from __future__ import annotations

import re
from typing import Any

from ...model.config import ROLES, LlamaConfig
from .architecture import Architecture, HuggingFace, Names, unsupported

_OURS, _THEIRS = "model.layers.*", "model.decoder.layers.*"

_NAMES: Names = {
    "model.embed_tokens": "model.decoder.embed_tokens",
    "model.embed_positions": "model.decoder.embed_positions",
    f"{_OURS}.input_layernorm": f"{_THEIRS}.self_attn_layer_norm",
    f"{_OURS}.self_attn.q_proj": f"{_THEIRS}.self_attn.q_proj",
    f"{_OURS}.self_attn.k_proj": f"{_THEIRS}.self_attn.k_proj",
    f"{_OURS}.self_attn.v_proj": f"{_THEIRS}.self_attn.v_proj",
    f"{_OURS}.self_attn.o_proj": f"{_THEIRS}.self_attn.out_proj",
    f"{_OURS}.post_attention_layernorm": f"{_THEIRS}.final_layer_norm",
    f"{_OURS}.mlp.gate_proj": f"{_THEIRS}.fc1",
    f"{_OURS}.mlp.down_proj": f"{_THEIRS}.fc2",
    "model.norm": "model.decoder.final_layer_norm",
    "lm_head": "lm_head",
}

#: of the table of positions: the first rows were meant for padding
_POSITION_OFFSET = 2
#: of torch's LayerNorm; the config has no key for it
_NORM_EPS = 1e-5


def _check(root: dict[str, Any]) -> None:
    """Keys of models that compute something else: OPT-350M has its norms behind each part and a narrower embedding."""
    wanted = {
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "layer_norm_elementwise_affine": True,
        "word_embed_proj_dim": root["hidden_size"],
    }
    for key, value in wanted.items():
        if root.get(key, value) not in (value, None):
            raise unsupported(f"opt with {key} {root[key]!r}")
    if root.get("activation_function", "relu") not in ("relu", "gelu"):
        raise unsupported(f"opt with activation_function {root['activation_function']!r}")


def _read(root: dict[str, Any]) -> LlamaConfig:
    _check(root)
    dim, heads = root["hidden_size"], root["num_attention_heads"]
    return LlamaConfig(
        architecture="opt",
        vocab_size=root["vocab_size"],
        dim=dim,
        hidden_dim=root["ffn_dim"],
        n_layers=root["num_hidden_layers"],
        n_heads=heads,
        n_kv_heads=heads,
        head_dim=dim // heads,
        context_length=root.get("max_position_embeddings") or 2048,
        norm_eps=_NORM_EPS,
        norm="layer",
        norm_bias=True,
        positions="learned",
        position_offset=_POSITION_OFFSET,
        feed_forward="plain",
        activation=root.get("activation_function", "relu"),
        tied_head=root.get("tie_word_embeddings", True) is True,
        biases=ROLES[:6] if root.get("enable_bias", True) is not False else (),
    )


OPT = Architecture(
    title="OPT",
    hugging_face=HuggingFace(
        model_types=("opt",),
        names=_NAMES,
        prefix="model.",
        read=_read,
        # a number that fairseq, from which the first checkpoints were converted, kept in its decoders
        is_ignored=lambda name: re.fullmatch(r"(model\.)?decoder\.version", name) is not None,
    ),
)
