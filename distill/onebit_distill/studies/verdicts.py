"""Claims that results decide about."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"


@dataclass(frozen=True)
class Claim:
    #: short, for the table
    title: str
    #: where the paper says it
    place: str
    rule: str
    found: str
    verdict: str


def compare(first: float, second: float, noise: float) -> int:
    """-1: the first is lower by more than the noise; 1: higher; 0: neither."""
    if math.isinf(first) or math.isinf(second):
        return (first > second) - (first < second)
    ratio = first / second
    return -1 if ratio < 1 / (1 + noise) else 1 if ratio > 1 + noise else 0


def lower(first: float, second: float, noise: float) -> str:
    """The verdict of "the first is lower"."""
    return {-1: HOLDS, 0: OPEN, 1: FAILS}[compare(first, second, noise)]


def percent(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")
