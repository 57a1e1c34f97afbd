"""The metadata of one architecture in a GGUF file, read under its prefix, and what its tensors say (src/import/gguf-keys.ts).

A key that nobody asked for may change what the model computes, so at the end it is an error by its name.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DistillError

#: they say nothing about the computation of logits
_HARMLESS = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type")


def shortest(value: float) -> float:
    """The shortest decimal that is this f32: 1e-5 and not 0.000009999999747378752."""
    for digits in range(1, 9):
        short = float(f"{value:.{digits}g}")
        if np.float32(short) == np.float32(value):
            return short
    return float(value)


@dataclass
class GgufKeys:
    path: str
    #: general.architecture
    architecture: str
    #: its keys by their whole names
    values: dict[str, Any]
    tensors: Collection[str]
    #: rows of the embedding
    vocab_size: int
    #: rope_freqs.weight, if it is there
    rope_factors: list[float] | None = None
    _asked: set[str] = field(default_factory=lambda: set(_HARMLESS))

    def bad(self, problem: str) -> DistillError:
        return DistillError("ERR_BAD_SOURCE", f"{self.path}: {problem}")

    def has_tensor(self, name: str) -> bool:
        return name in self.tensors

    def get(self, key: str) -> Any:
        """None: it is not there."""
        self._asked.add(key)
        return self.values.get(f"{self.architecture}.{key}")

    def number(self, key: str, fallback: float | None = None) -> float:
        value = self.get(key)
        value = fallback if value is None else value
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return value
        raise self.bad(f"{self.architecture}.{key} must be a number, found {str(value)[:40]}")

    def whole(self, key: str, fallback: int | None = None) -> int:
        """Range and fit are the config's business."""
        return int(self.number(key, fallback))

    def flag(self, key: str, fallback: bool) -> bool:
        value = self.get(key)
        if not isinstance(value, (bool, type(None))):
            raise self.bad(f"{self.architecture}.{key} must be true or false, found {str(value)[:40]}")
        return fallback if value is None else value

    def must_be(self, key: str, *allowed: Any) -> None:
        """A switch that must be as it is in a plain model: left out, or one of these values."""
        value = self.get(key)
        if value is not None and (shortest(value) if isinstance(value, float) else value) not in allowed:
            raise self._unsupported(key)

    def _unsupported(self, key: str) -> DistillError:
        value = str(self.values[f"{self.architecture}.{key}"])[:40]
        message = f"{self.path}: {self.architecture} with {key[:80]} {value}"
        return DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message)

    def check_nothing_left(self) -> None:
        """Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE, naming a key that was never asked for."""
        prefix = f"{self.architecture}."
        for name in self.values:
            if name.startswith(prefix) and name.removeprefix(prefix) not in self._asked:
                raise self._unsupported(name.removeprefix(prefix))
