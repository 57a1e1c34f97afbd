"""BitNet b1.58: ternary weights, a norm in front of each part's last matrix, and the square of ReLU in the place of
SiLU, which the older models have."""

from __future__ import annotations

from typing import Any

from ...model.config import LlamaConfig
from ..gguf_keys import GgufKeys
from .architecture import Architecture, Gguf, HuggingFace, unsupported
from .llama_family import GGUF_NAMES, HF_NAMES, attention_biases, is_table, read_gguf, read_hf

_ACTIVATIONS = {"relu2": "relu2", "silu": "silu", "swish": "silu"}

_INNER_NORMS = {"architecture": "bitnet", "attention_inner_norm": True, "ffn_inner_norm": True}


def _read(root: dict[str, Any]) -> LlamaConfig:
    usual = {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "relu2"}
    root = {**usual, **root}
    act = root["hidden_act"]
    if act not in _ACTIVATIONS:
        raise unsupported(f"bitnet with hidden_act {act!r}")
    described = {**_INNER_NORMS, "activation": _ACTIVATIONS[act], "biases": attention_biases(root)}
    return read_hf(root, context=2048, kv_heads=5, activations=(act,), **described)


def _read_first(root: dict[str, Any]) -> LlamaConfig:
    for key, known in (("weight_bits", 1), ("input_bits", 8)):
        if root.get(key) != known:
            raise unsupported(f"bitnet of model_type llama with {key} {root.get(key)!r}")
    return read_hf(root, context=2048, biases=attention_biases(root), **_INNER_NORMS)


def _read_gguf(keys: GgufKeys) -> LlamaConfig:
    usual = "silu" if keys.architecture == "bitnet" else "relu2"
    act = keys.get("hidden_activation") or keys.get("hidden_act") or usual
    if act not in _ACTIVATIONS:
        raise unsupported(f"{keys.architecture} with hidden_activation {str(act)[:40]!r}")
    return read_gguf(keys, activation=_ACTIVATIONS[act], **_INNER_NORMS)


BITNET = Architecture(
    title="BitNet",
    hugging_face=HuggingFace(model_types=("bitnet",), names=HF_NAMES, prefix="model.", read=_read, is_ignored=is_table),
    gguf=Gguf(architectures=("bitnet-b1.58", "bitnet-25", "bitnet"), names=GGUF_NAMES, read=_read_gguf),
)

#: folders of remote code, with Llama's model_type, SiLU, and other names of the two norms
FIRST_BITNET = HuggingFace(
    model_types=(),
    classes=("BitnetForCausalLM",),
    names={
        **HF_NAMES,
        "model.layers.*.self_attn.attn_sub_norm": "model.layers.*.self_attn.inner_attn_ln",
        "model.layers.*.mlp.ffn_sub_norm": "model.layers.*.mlp.ffn_layernorm",
    },
    prefix="model.",
    read=_read_first,
    is_ignored=is_table,
)
