"""Mistral: a Llama whose positions see a sliding window. As a GGUF file it is a llama (llama.py)."""

from __future__ import annotations

from typing import Any

from ...model.config import LlamaConfig
from .architecture import Architecture, HuggingFace, unsupported
from .llama_family import HF_NAMES, hf_window, is_table, read_hf


def _read(root: dict[str, Any]) -> LlamaConfig:
    # Mistral itself takes no notice of it, but who writes it means a window in some layers only.
    if root.get("layer_types") is not None:
        raise unsupported("mistral with layer_types")
    return read_hf(root, context=131072, kv_heads=8, architecture="mistral", window=hf_window(root))


MISTRAL = Architecture(
    title="Mistral",
    hugging_face=HuggingFace(
        model_types=("mistral",), names=HF_NAMES, prefix="model.", read=_read, is_ignored=is_table
    ),
)
