"""Qwen3: a Llama with a norm of every head of q and k."""

from __future__ import annotations

from typing import Any

from ...model.config import LlamaConfig
from .architecture import Architecture, Gguf, HuggingFace
from .llama_family import GGUF_NAMES, HF_NAMES, attention_biases, is_table, qwen_window, read_gguf, read_hf


def _read(root: dict[str, Any]) -> LlamaConfig:
    described = {"architecture": "qwen3", "qk_norm": True, "biases": attention_biases(root)}
    return read_hf(root, context=32768, kv_heads=32, head_dim=128, window=qwen_window(root), **described)


QWEN3 = Architecture(
    title="Qwen3",
    hugging_face=HuggingFace(model_types=("qwen3",), names=HF_NAMES, prefix="model.", read=_read, is_ignored=is_table),
    gguf=Gguf(
        architectures=("qwen3",),
        names=GGUF_NAMES,
        read=lambda keys: read_gguf(keys, architecture="qwen3", qk_norm=True),
    ),
)
