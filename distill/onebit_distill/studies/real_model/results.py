"""What is known of a row: how it was made, and what the engine found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DistillError
from ..kept import Kept
from .plan import ROWS, Row


@dataclass(frozen=True)
class Made:
    """A row's model is a file."""

    #: options of its making
    settings: dict[str, Any]
    #: how it differs from what it is named after
    notes: list[str]
    #: on the clock, of all calls together; loading the teacher counts where the row is trained
    seconds: float
    #: that optimiser steps saw, end to end; repeated ones count again
    tokens: int
    #: different tokens that blocks were calibrated or fitted on
    calibration_tokens: int
    #: a linear weight, every scale in 16 bits
    bits: float
    file_bytes: int
    #: how dense linears lie in the file; "" where there are none
    stored: str
    #: the most that writing a dense weight changed it by, as a share of the largest of its row
    stored_error: float = 0.0
    #: what the method says of each block
    blocks: list[dict[str, Any]] = field(default_factory=list)
    #: that it was made on, since minutes mean nothing without; "" in rows that are older than this
    machine: str = ""


@dataclass(frozen=True)
class TaskScore:
    metric: str
    value: float
    stderr: float
    questions: int


@dataclass(frozen=True)
class RowResult:
    name: str
    made: Made | None = None
    #: what `onebit perplexity --json` said
    perplexity: dict[str, Any] | None = None
    tasks: dict[str, TaskScore] = field(default_factory=dict)
    #: what ended it, by code and message; None: nothing
    failure: dict[str, str] | None = None

    @property
    def is_done(self) -> bool:
        return self.failure is None and self.perplexity is not None

    @property
    def ppl(self) -> float:
        return float(self.perplexity["perplexity"]) if self.perplexity is not None else math.nan

    @property
    def average(self) -> float:
        """Mean accuracy over the tasks, 0 to 1; NaN without any."""
        return sum(task.value for task in self.tasks.values()) / len(self.tasks) if self.tasks else math.nan

    @property
    def average_stderr(self) -> float:
        if not self.tasks:
            return math.nan
        return math.sqrt(sum(task.stderr**2 for task in self.tasks.values())) / len(self.tasks)

    @property
    def minutes(self) -> float:
        return math.nan if self.made is None else self.made.seconds / 60

    def to_json(self) -> dict[str, Any]:
        derived = {"average": self.average, "average_stderr": self.average_stderr} if self.tasks else {}
        return {**asdict(self), **derived}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> RowResult:
        made = found["made"]
        return cls(
            found["name"],
            None if made is None else Made(**made),
            found["perplexity"],
            {name: TaskScore(**task) for name, task in found["tasks"].items()},
            found["failure"],
        )


class Rows(Kept):
    """RUN/rows: a file for each row that was tried."""

    def result(self, row: Row) -> RowResult | None:
        """Raises DistillError ERR_RESULT."""
        found = self.read(row.name)
        try:
            return None if found is None else RowResult.from_json(found)
        except (KeyError, TypeError, AttributeError) as cause:
            raise self.unreadable(row.name, cause) from cause

    def keep(self, result: RowResult) -> None:
        self.write(result.name, result.to_json())


@dataclass(frozen=True)
class Table:
    """All rows that were tried, for reports."""

    #: of study.json
    study: dict[str, Any]
    results: dict[str, RowResult]

    @classmethod
    def read(cls, run: Path) -> Table:
        """Raises DistillError ERR_NO_RUN where there is no study yet, ERR_RESULT."""
        study = Kept(run).read("study")
        if study is None:
            raise DistillError("ERR_NO_RUN", f"{run} has no study.json", "Make a row first.")
        rows = Rows(run / "rows")
        found = {row.name: rows.result(row) for row in ROWS}
        return cls(study, {name: result for name, result in found.items() if result is not None})

    def done(self, name: str) -> RowResult | None:
        """None: missing or failed."""
        found = self.results.get(name)
        return found if found is not None and found.is_done else None

    def all_done(self, names: Iterable[str]) -> list[RowResult]:
        return [found for name in names if (found := self.done(name)) is not None]
