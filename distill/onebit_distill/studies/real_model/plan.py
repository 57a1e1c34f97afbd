"""What all rows of `real-model` share, and which rows there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import DistillError, check_whole_numbers


@dataclass(frozen=True)
class Plan:
    """Raises DistillError ERR_BAD_OPTION for values out of range."""

    #: that a trained row gets
    minutes: float = 20.0
    #: that the row with the full budget gets
    full_minutes: float = 90.0
    #: tokens a sequence, in training and calibration
    block: int = 256
    #: sequences an optimiser step
    batch: int = 16
    #: tokens that GPTQ, OmniQuant and the blocks of `reconstruct` see, the same ones
    calibration_tokens: int = 131_072
    #: questions of each task
    limit: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("minutes", "full_minutes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DistillError("ERR_BAD_OPTION", f"{name} must be above 0, found {value!r}")
        check_whole_numbers(self, {"block": 2, "batch": 1, "calibration_tokens": 1, "limit": 1, "seed": 0})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    #: of its files, and for --rows
    name: str
    label: str
    #: one of METHODS
    method: str
    #: of a code; 0: the teacher's floats
    bits: float
    #: whether it gets minutes
    trained: bool = False


#: by the names that rows have them, with what charts call them
METHODS = {
    "teacher": "teacher",
    "rtn": "round to nearest",
    "gptq": "GPTQ",
    "omniquant": "OmniQuant",
    "llm-qat": "LLM-QAT",
    "bitnet": "BitNet b1, transfer",
    "onebit-paper": "OneBit, the paper's recipe",
    "onebit-best": "OneBit, our recipe",
    "onebit-best-full": "OneBit, our recipe",
    "chain": "chains, our recipe",
}


def _bit(bits: int) -> str:
    return f"{bits} bit{'' if bits == 1 else 's'}"


#: in the order in which they are made: what costs little comes first
ROWS: tuple[Row, ...] = (
    Row("teacher", "teacher", "teacher", 0),
    *(Row(f"rtn-{bits}", f"round to nearest, {_bit(bits)}", "rtn", bits) for bits in (1, 2, 3, 4)),
    *(Row(f"gptq-{bits}", f"GPTQ, {_bit(bits)}", "gptq", bits) for bits in (2, 1, 3, 4)),
    *(Row(f"omniquant-{bits}", f"OmniQuant, {_bit(bits)}", "omniquant", bits, True) for bits in (2, 1)),
    *(Row(f"llm-qat-{bits}", f"LLM-QAT, {_bit(bits)}", "llm-qat", bits, True) for bits in (2, 1)),
    Row("bitnet", "BitNet b1 with transfer", "bitnet", 1, True),
    Row("onebit-paper", "OneBit, `configs/paper.toml`", "onebit-paper", 1, True),
    Row("onebit-best", "OneBit, our recipe", "onebit-best", 1, True),
    Row("chain-1", "chains of 1.0 bits, our recipe", "chain", 1, True),
    Row("chain-2", "chains of 2.0 bits, our recipe", "chain", 2, True),
    Row("onebit-best-full", "OneBit, our recipe, full budget", "onebit-best-full", 1, True),
)


def chosen_rows(names: Sequence[str] | None) -> list[Row]:
    """Rows by name, in the order in which they are made; None: all. Raises DistillError ERR_BAD_OPTION."""
    if names is None:
        return list(ROWS)
    known = [row.name for row in ROWS]
    for name in names:
        if name not in known:
            raise DistillError("ERR_BAD_OPTION", f"there is no row {name!r}", f"Rows are {', '.join(known)}.")
    return [row for row in ROWS if row.name in names]


def minutes_of(row: Row, plan: Plan) -> float:
    """That a trained row gets; 0 for the others."""
    if not row.trained:
        return 0.0
    return plan.full_minutes if row.method == "onebit-best-full" else plan.minutes
