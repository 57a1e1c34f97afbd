"""The architectures that can be teachers, and what a source's own name of its architecture leads to."""

from __future__ import annotations

from .architecture import Architecture, Gguf, HuggingFace, unsupported
from .bitnet import BITNET, FIRST_BITNET
from .gpt_neox import GPT_NEOX
from .llama import LLAMA
from .mistral import MISTRAL
from .opt import OPT
from .qwen2 import QWEN2
from .qwen3 import QWEN3
from .qwen35 import QWEN35

ARCHITECTURES: tuple[Architecture, ...] = (BITNET, GPT_NEOX, LLAMA, MISTRAL, OPT, QWEN2, QWEN3, QWEN35)


def _hint() -> str:
    *titles, last = [architecture.title for architecture in ARCHITECTURES]
    return f"{', '.join(titles)} and {last} can be teachers."


def hugging_face(model_type: object, classes: object = None) -> HuggingFace:
    """By config.json's model_type and its `architectures`. Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE."""
    if isinstance(classes, list) and any(name in FIRST_BITNET.classes for name in classes):
        return FIRST_BITNET
    for architecture in ARCHITECTURES:
        if model_type in architecture.hugging_face.model_types:
            return architecture.hugging_face
    raise unsupported(repr(model_type)[:60], _hint())


def gguf(name: object) -> Gguf:
    """By general.architecture. Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE."""
    for architecture in ARCHITECTURES:
        if architecture.gguf is not None and name in architecture.gguf.architectures:
            return architecture.gguf
    raise unsupported(str(name)[:60], _hint())
