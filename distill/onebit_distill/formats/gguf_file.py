"""Models from GGUF files: config, float tensors under our names, and the text side. What the metadata and the names of
tensors mean is in `architectures`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DistillError
from .architectures import known
from .architectures.architecture import our_names, split_fused
from .gguf_keys import GgufKeys, shortest
from .gguf_types import Q2_0, Q2_0_LAYOUTS, StoredType, decode, stored_type
from .gguf_vocabulary import tokenizer_from_gguf
from .prism_hadamard import read_prism_hadamard

_ROPE_FACTORS = "rope_freqs.weight"


def _bad_source(problem: str, hint: str | None = None) -> DistillError:
    return DistillError("ERR_BAD_SOURCE", problem, hint)


@dataclass(frozen=True)
class _Placed:
    name: str
    #: [rows, columns], as PyTorch has it
    shape: tuple[int, ...]
    type_id: int
    #: of its first byte in the file
    start: int


@cache
def _reader_class():
    from gguf import GGUFReader

    class Reader(GGUFReader):
        """Keeps where tensors lie instead of opening them: the package knows fewer types than we do."""

        def _build_tensors(self, start_offs, fields) -> None:
            self.placed = []
            for field in fields:
                _, name, _, dims, type_id, offset = field.parts
                shape = tuple(int(size) for size in reversed(dims))
                at = int(start_offs) + int(offset[0])
                self.placed.append(_Placed(bytes(name).decode("utf-8"), shape, int(type_id[0]), at))

    return Reader


class GgufFile:
    """Raises DistillError ERR_BAD_SOURCE, ERR_TRUNCATED, ERR_MISSING_TENSOR, ERR_UNSUPPORTED_ARCHITECTURE,
    ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_TENSOR_TYPE when opened."""

    def __init__(self, path: str) -> None:
        self.path, self.files = path, [Path(path)]
        try:
            self._reader = _reader_class()(path)
        except (ValueError, KeyError, IndexError, OverflowError, UnicodeDecodeError, MemoryError) as cause:
            problem = f"{path} is not a GGUF file that can be read ({cause})"
            raise _bad_source(problem, "The download may have stopped early; get the file again.") from cause
        self._tensors = {tensor.name: tensor for tensor in self._reader.placed}
        self._check_model()
        self._types = self._stored_types()
        self._description = known.gguf(self.get("general.architecture"))
        keys = self._keys()
        self.config = self._description.read(keys)
        keys.check_nothing_left()
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self._rotated = read_prism_hadamard(self._reader.fields, shapes)

    def get(self, key: str) -> Any:
        """A metadata value, or None."""
        found = self._reader.fields.get(key)
        return None if found is None else found.contents()

    def tokenizer(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tokenizer.json, tokenizer config), or None when the file has no vocabulary."""
        return None if self.get("tokenizer.ggml.model") is None else tokenizer_from_gguf(self.get)

    def chat_template(self) -> str | None:
        return self.get("tokenizer.chat_template")

    def _check_model(self) -> None:
        if len(self._tensors) != len(self._reader.placed):
            raise _bad_source(f"{self.path} has two tensors of one name")
        if (self.get("split.count") or 1) > 1:
            hint = "Join them first: llama-gguf-split --merge FIRST OUT."
            raise _bad_source(f"{self.path} is one of several parts", hint)
        if not self._tensors:
            raise _bad_source(f"{self.path} has no tensors: it holds only a vocabulary")

    def _keys(self) -> GgufKeys:
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None:
            raise DistillError("ERR_MISSING_TENSOR", f"{self.path} has no tensor token_embd.weight")
        factors = None
        if _ROPE_FACTORS in self._tensors:
            factors = [shortest(float(value)) for value in self.tensor(_ROPE_FACTORS).flatten()]
        architecture = self.get("general.architecture")
        own = {name: field for name, field in self._reader.fields.items() if name.startswith(f"{architecture}.")}
        return GgufKeys(
            path=self.path,
            architecture=architecture,
            values={name: field.contents() for name, field in own.items()},
            tensors=self._tensors,
            vocab_size=embedding.shape[0],
            rope_factors=factors,
        )

    def _stored_types(self) -> dict[str, StoredType]:
        """The type of every tensor; each of their bytes inside the file, no two sharing any."""
        placed = sorted(self._tensors.values(), key=lambda tensor: tensor.start)
        ends = [*(tensor.start for tensor in placed[1:]), len(self._reader.data)]
        room = {tensor.name: end - tensor.start for tensor, end in zip(placed, ends, strict=True)}
        q2_0 = self._q2_0([tensor for tensor in placed if tensor.type_id == Q2_0], room)
        types = {}
        for tensor in placed:
            found = q2_0 if tensor.type_id == Q2_0 else stored_type(tensor.type_id)
            if found is None:
                message = f"{self.path}: tensor {tensor.name} has type {tensor.type_id}, which cannot be decoded"
                raise DistillError("ERR_UNSUPPORTED_TENSOR_TYPE", message)
            size = found.size(math.prod(tensor.shape))
            if size < 0 or tensor.shape[-1] % found.weights != 0 and not found.tail:
                raise _bad_source(
                    f"{self.path}: tensor {tensor.name} has rows that are no whole blocks of {found.name}"
                )
            if tensor is placed[-1] and size > room[tensor.name]:
                message = f"{self.path}: tensor {tensor.name} ends behind the file's last byte"
                raise DistillError("ERR_TRUNCATED", message, "The download stopped early; get the file again.")
            if size > room[tensor.name]:
                raise _bad_source(f"{self.path}: tensor {tensor.name} has {size} bytes, there are {room[tensor.name]}")
            types[tensor.name] = found
        return types

    def _q2_0(self, tensors: list[_Placed], room: dict[str, int]) -> StoredType | None:
        """Groups of 64 or of 128 under one id: the layout that fills the room of all such tensors up to the alignment."""
        if not tensors:
            return None
        alignment = int(self.get("general.alignment") or 32)

        def fits(layout: StoredType, tensor: _Placed) -> bool:
            size = layout.size(math.prod(tensor.shape))
            return tensor.shape[-1] % layout.weights == 0 and 0 <= room[tensor.name] - size < alignment

        left = [layout for layout in Q2_0_LAYOUTS if all(fits(layout, tensor) for tensor in tensors)]
        if len(left) != 1:
            which = "both" if left else "neither"
            problem = f"tensors of type Q2_0 are in groups of 64 or of 128, and their sizes fit {which}"
            raise _bad_source(f"{self.path}: {problem}")
        return left[0]

    def tensor(self, name: str) -> Tensor:
        """float32, as the file has it: rows in GGUF's order. Raises DistillError ERR_BAD_SOURCE."""
        placed, stored = self._tensors[name], self._types[name]
        size = stored.size(math.prod(placed.shape))
        data = np.array(self._reader.data[placed.start : placed.start + size])
        try:
            return torch.from_numpy(decode(stored, data)).reshape(placed.shape)
        except ValueError as cause:
            raise _bad_source(f"{self.path}: tensor {name}: {cause}") from cause

    def _scaled(self, name: str) -> Tensor:
        """With the one number by which some files multiply a matrix."""
        scale = f"{name.removesuffix('.weight')}.scale"
        return self.tensor(name) * self.tensor(scale) if scale in self._tensors else self.tensor(name)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(our name, float32 tensor) of each. Raises DistillError ERR_MISSING_TENSOR, ERR_BAD_SOURCE."""
        description = self._description
        names = our_names(self.config, description.names)
        missing = next((theirs for theirs in names if theirs not in self._tensors), None)
        if missing is not None:
            raise DistillError("ERR_MISSING_TENSOR", f"{self.path} has no tensor {missing}")
        scales = {f"{theirs.removesuffix('.weight')}.scale" for theirs in names if theirs.endswith(".weight")}
        left = sorted(set(self._tensors) - set(names) - scales - {_ROPE_FACTORS})
        left = [name for name in left if not description.is_ignored(name, self.config)]
        if left:
            hint = "It is probably of a kind that only looks like the one that it names."
            problem = f"{self.path} has a tensor {left[0]}, which a model of its architecture does not use"
            raise _bad_source(problem, hint)
        for theirs, ours in names.items():
            value = self._scaled(theirs)
            if self._rotated is not None:
                value = self._rotated.turned_back(self.config, theirs, value)
            parts = [value] if len(ours) == 1 else split_fused(self.config, ours, value, description.fused)
            for name, part in zip(ours, parts, strict=True):
                yield name, description.convert(self.config, name, part)
