"""What `baselines` has found: one file for each finished run or measurement, there whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kept import Kept
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


class Results(Kept):
    """The folder of finished runs and measurements."""

    def result(self, row: Row) -> Result | None:
        found = self.read(row.key)
        try:
            return None if found is None else Result.from_json(found)
        except (KeyError, TypeError) as cause:
            raise self.unreadable(row.key, cause) from cause
