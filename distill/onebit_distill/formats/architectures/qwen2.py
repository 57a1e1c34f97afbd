"""Qwen2 and Qwen2.5: a Llama with biases on q, k and v."""

from __future__ import annotations

from typing import Any

from ...model.config import QKV, LlamaConfig
from .architecture import Architecture, Gguf, HuggingFace
from .llama_family import GGUF_NAMES, HF_NAMES, is_table, qwen_window, read_gguf, read_hf


def _read(root: dict[str, Any]) -> LlamaConfig:
    return read_hf(root, context=32768, kv_heads=32, architecture="qwen2", biases=QKV, window=qwen_window(root))


QWEN2 = Architecture(
    title="Qwen2",
    hugging_face=HuggingFace(model_types=("qwen2",), names=HF_NAMES, prefix="model.", read=_read, is_ignored=is_table),
    gguf=Gguf(
        architectures=("qwen2",),
        names=GGUF_NAMES,
        read=lambda keys: read_gguf(keys, biases=QKV, architecture="qwen2"),
    ),
)
