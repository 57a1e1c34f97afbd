"""What the description of a kind of model consists of (src/architectures/architecture.ts).

A description says how the two formats in which models come, Hugging Face folders and GGUF files, tell what a model
computes, and what they call its tensors. A new kind of model is a file in this folder and a line in `known.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import DistillError
from ...model.config import HF_LINEARS, LlamaConfig
from ...model.llama import Llama
from ..gguf_keys import GgufKeys

#: Their name of each part by ours, `*` standing for the layer; `.weight` or `.bias` comes behind in both.
Names = dict[str, str]

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_SUFFIX = re.compile(r"\.(weight|bias)$")


def unsupported(what: str, hint: str | None = None) -> DistillError:
    message = f"The teacher is of an architecture we do not know: {what}"
    return DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message, hint)


def nothing_ignored(name: str) -> bool:
    return False


def as_stored(config: LlamaConfig, name: str, tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class HuggingFace:
    #: config.json's model_type
    model_types: tuple[str, ...]
    names: Names
    #: what names begin with, except in checkpoints of the bare base model
    prefix: str
    #: reads a config.json; raises DistillError and what a wrong type of a field raises
    read: Callable[[dict[str, Any]], LlamaConfig]
    #: what they begin with instead where the text model is a part of a larger one
    nested_prefix: str | None = None
    #: of config.json's `architectures`, for models that have another's model_type
    classes: tuple[str, ...] = ()
    #: how q, k and v that lie in one tensor are told apart: by head or by matrix
    fused: str = "head"
    #: tensors that hold nothing of the model
    is_ignored: Callable[[str], bool] = nothing_ignored
    #: a tensor as the model has it, from one as it is stored; with our name
    convert: Callable[[LlamaConfig, str, Tensor], Tensor] = as_stored


@dataclass(frozen=True)
class Gguf:
    #: general.architecture
    architectures: tuple[str, ...]
    names: Names
    #: keys that it does not ask for are an error
    read: Callable[[GgufKeys], LlamaConfig]
    fused: str = "matrix"
    #: tensors that hold nothing of the model that has this config
    is_ignored: Callable[[str, LlamaConfig], bool] = lambda name, config: False
    convert: Callable[[LlamaConfig, str, Tensor], Tensor] = as_stored


@dataclass(frozen=True)
class Architecture:
    #: for people
    title: str
    hugging_face: HuggingFace
    #: None: there are no such files, or they have another architecture's name
    gguf: Gguf | None = None


def _their_name(names: Names, ours: str) -> str:
    layer = _LAYER.match(ours)
    general = _LAYER.sub("model.layers.*.", ours)
    part, suffix = (general, "") if general in names else (_SUFFIX.sub("", general), _SUFFIX.search(general)[0])
    return (names[part] + suffix).replace("*", layer[1] if layer else "")


def our_names(config: LlamaConfig, names: Names) -> dict[str, list[str]]:
    """Our name of each of their tensors; several where matrices lie in one."""
    with torch.device("meta"):
        expected = Llama(config).state_dict()
    found: dict[str, list[str]] = {}
    for ours in expected:
        found.setdefault(_their_name(names, ours), []).append(ours)
    return found


def split_fused(config: LlamaConfig, ours: list[str], tensor: Tensor, by: str) -> list[Tensor]:
    """The matrices (or biases) that lie in one tensor: all rows of the first head of each, then of the second, and on
    (`head`), or one whole matrix after the other (`matrix`). Of a wrong size it stays whole, which the caller reports.
    """
    role = {name: role for role, name in HF_LINEARS.items()}
    rows = [config.linear_shape(role[_SUFFIX.sub("", _LAYER.sub("", name))])[0] for name in ours]
    if tensor.shape[0] != sum(rows):
        return [tensor] * len(ours)
    if by == "matrix":
        return list(tensor.split(rows))
    heads = tensor.unflatten(0, (-1, len(ours), config.head_dim))
    return [heads[:, index].flatten(0, 1) for index in range(len(ours))]
