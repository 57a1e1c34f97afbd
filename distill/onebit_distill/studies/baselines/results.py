"""What `baselines` has found: one file for each finished run or measurement, there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DistillError
from ...system.atomic_file import file_error, writing_atomically
from .plan import Row


@dataclass(frozen=True)
class Scores:
    """What a model does with the validation text."""

    perplexity: float
    #: mean KL(teacher ‖ model) in nats a token
    kl: float
    #: the largest magnitude that any linear puts out
    largest_output: float
    #: the largest of a product of activations and signs, before it is multiplied by h: what overflows where fp16 ends, at
    #: 65,504, when g and h are not folded into the signs; 0 without sign layers
    largest_product: float = 0.0


@dataclass(frozen=True)
class Result:
    """One run, finished or failed."""

    label: str
    settings: dict[str, Any]
    #: None: the loss stopped being a number
    scores: Scores | None
    failure: str | None
    #: KL to the teacher on each step's training texts, nats a token
    curve: list[float]
    #: bits per weight of the linears, scales counted as 16 bits each
    bits: float
    cpu_seconds: float

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Result:
        scores = found["scores"]
        return cls(**{**found, "scores": None if scores is None else Scores(**scores)})


class Results:
    """The folder of finished runs and measurements."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise file_error(cause, folder, "writing") from cause

    def read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError) as cause:
            raise self._unreadable(name, cause) from cause

    def _unreadable(self, name: str, cause: Exception) -> DistillError:
        path = self.folder / f"{name}.json"
        return DistillError("ERR_RESULT", f"{path} cannot be read ({cause})", "Delete the file: it is made again.")

    def write(self, name: str, value: dict[str, Any]) -> None:
        with writing_atomically(self.folder / f"{name}.json") as file:
            file.write(json.dumps(value).encode())

    def result(self, row: Row) -> Result | None:
        found = self.read(row.key)
        try:
            return None if found is None else Result.from_json(found)
        except (KeyError, TypeError) as cause:
            raise self._unreadable(row.key, cause) from cause

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` gave when it was first called for this name."""
        found = self.read(name)
        if found is None:
            found = make()
            self.write(name, found)
        return found
