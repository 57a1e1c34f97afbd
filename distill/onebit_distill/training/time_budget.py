"""How long a run may take, counted over all calls of its command."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from ..errors import DistillError
from ..system.atomic_file import writing_atomically

#: a month; whoever means more does not mean minutes
_MOST_MINUTES = 43_200.0


class TimeBudget:
    """Seconds that a run has taken and has left; kept in its folder with each piece of work that is.

    What a kill took away is not counted, as its work is lost too. minutes 0: no limit. Raises DistillError ERR_BAD_OPTION.
    """

    def __init__(self, run: Path, minutes: float) -> None:
        if not 0 <= minutes <= _MOST_MINUTES:
            message = f"minutes must be from 0 (no limit) to {_MOST_MINUTES:g}, found {minutes!r}"
            raise DistillError("ERR_BAD_OPTION", message)
        self.path, self.total = _time_path(run), 60 * minutes if minutes else math.inf
        self._before, self._started = kept_seconds(run), time.monotonic()

    @property
    def is_limited(self) -> bool:
        return math.isfinite(self.total)

    def spent(self) -> float:
        return self._before + time.monotonic() - self._started

    def left(self) -> float:
        """Seconds, below 0 when it is over, infinite without a limit."""
        return self.total - self.spent()

    def keep(self) -> None:
        with writing_atomically(self.path) as file:
            file.write(json.dumps({"seconds": round(self.spent(), 3)}).encode())


class EvenShares:
    """What is left of a budget, shared evenly by pieces of work that come one after the other.

    Beside the time that a piece is given it takes some that is the same for all (here: states that go through a block). That
    of the piece before is taken off, or the last ones would pay for all.
    """

    def __init__(self, budget: TimeBudget, pieces: int) -> None:
        self.budget, self.pieces = budget, pieces
        self._left_before: float | None = None
        self._used = 0.0

    def next(self, index: int) -> float:
        """Seconds for piece `index`, at least 0."""
        left, beside = self.budget.left(), 0.0
        if self._left_before is not None and math.isfinite(left):
            beside = max(0.0, self._left_before - left - self._used)
        self._left_before, self._used = left, 0.0
        return max(0.0, left / (self.pieces - index) - beside)

    def used(self, seconds: float) -> None:
        """What the piece has taken of its seconds."""
        self._used = seconds


def _time_path(run: Path) -> Path:
    return run / "time.json"


def kept_seconds(run: Path) -> float:
    """That all calls for a run's folder took so far, as far as they were kept."""
    try:
        return float(json.loads(_time_path(run).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
