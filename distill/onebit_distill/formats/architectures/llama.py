"""Llama; and the OneBit authors' own checkpoints (bitllama), which are Llamas whose linears are signs."""

from __future__ import annotations

from torch import Tensor

from ...model.config import LlamaConfig
from ...model.rope import rows_for_halves
from ..gguf_keys import GgufKeys
from .architecture import Architecture, Gguf, HuggingFace
from .llama_family import GGUF_NAMES, HF_NAMES, attention_biases, is_table, read_gguf, read_hf


def _read_gguf(keys: GgufKeys) -> LlamaConfig:
    """Mistral comes under this name too."""
    return read_gguf(keys, architecture="llama", window=keys.whole("attention.sliding_window", 0))


def _from_neighbours(config: LlamaConfig, name: str, tensor: Tensor) -> Tensor:
    """The converter reorders the rows of q and k for a rotation of neighbours."""
    heads = {"q_proj": config.n_heads, "k_proj": config.n_kv_heads}.get(name.split(".")[-2])
    return tensor if heads is None else rows_for_halves(tensor, heads)


LLAMA = Architecture(
    title="Llama",
    hugging_face=HuggingFace(
        model_types=("llama", "bitllama"),
        names=HF_NAMES,
        prefix="model.",
        read=lambda root: read_hf(root, context=2048, architecture="llama", biases=attention_biases(root)),
        # the official trainer leaves its teacher in its checkpoints
        is_ignored=lambda name: is_table(name) or name.startswith("teacher_model."),
    ),
    gguf=Gguf(architectures=("llama",), names=GGUF_NAMES, read=_read_gguf, convert=_from_neighbours),
)
