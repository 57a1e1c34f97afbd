"""All results of `baselines` with the questions that tables, charts and claims ask of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ...data.teacher import Teacher
from ...training.settings import Settings
from .plan import METHODS, Row, Study, rate_rows, recipe_rows, reference_rows, settings_key
from .results import Result, Scores

#: validation text is finite too: less than this never counts as a difference
_LEAST_NOISE = 0.01

#: a run is unstable when its training loss, averaged over so many steps, rises by this share above its lowest before
_SMOOTH_STEPS, UNSTABLE_RISE = 16, 0.25


@dataclass(frozen=True)
class Book:
    study: Study
    #: by the key of their settings
    runs: dict[str, Result]
    teacher: Teacher
    teacher_scores: Scores
    #: by `even 3` and `symmetric 3`
    rounding: dict[str, Scores]
    #: before training, by `svd`, `svd without LayerNorm`, …
    starts: dict[str, dict[str, Any]]
    #: ‖W − best rank one of W‖ / ‖W‖ of each linear of the teacher
    rank_one_errors: list[float]
    validation_tokens: int
    training_tokens: int
    #: besides the runs: generation, tokenisation, measurements
    other_cpu_seconds: float
    command: str

    def of(self, row: Row | Settings) -> Result:
        return self.runs[row.key if isinstance(row, Row) else settings_key(row)]

    def perplexity(self, row: Row | Settings) -> float:
        """Infinite for a run that failed."""
        scores = self.of(row).scores
        return math.inf if scores is None else scores.perplexity

    def kl(self, row: Row | Settings) -> float:
        scores = self.of(row).scores
        return math.inf if scores is None else scores.kl

    def best(self, rows: Sequence[Row]) -> Row:
        return min(rows, key=self.perplexity)

    def method_rows(self, method: str) -> list[Row]:
        return [row for row in rate_rows(self.study) if row.marks["method"] == method]

    def best_of_method(self, method: str) -> Row:
        return self.best(self.method_rows(method))

    def rounding_best(self, bits: int) -> float:
        """The better of the two ways to round; infinite where it was not measured."""
        found = [self.rounding[f"{kind} {bits}"].perplexity for kind in ("even", "symmetric")
                 if f"{kind} {bits}" in self.rounding]  # fmt: skip
        return min(found, default=math.inf)

    def recipe(self, name: str, seed: int) -> list[Row]:
        return [r for r in recipe_rows(self.study) if r.marks["recipe"] == name and r.marks["seed"] == seed]

    def noise(self) -> float:
        """By what share perplexities may differ and still mean the same: the most that two seeds of the reference run,
        or of ours, are apart; at least 1 %."""
        ours = [self.perplexity(self.recipe("ours", seed)[0]) for seed in self.study.sizes.seeds]
        reference = [self.perplexity(row) for row in reference_rows(self.study)]
        pairs = [*combinations(ours, 2), *combinations(reference, 2)]
        apart = [max(pair) / min(pair) - 1 for pair in pairs if all(map(math.isfinite, pair))]
        return max([_LEAST_NOISE, *apart])

    def smoothed(self, row: Row | Settings) -> list[float]:
        """The training curve, each step averaged with those before it, 16 at most."""
        curve = self.of(row).curve
        return [
            sum(curve[max(0, i + 1 - _SMOOTH_STEPS) : i + 1]) / min(i + 1, _SMOOTH_STEPS) for i in range(len(curve))
        ]

    def mean_curve(self, row: Row | Settings) -> float:
        """The mean of the training curve: the lower, the faster a run came down."""
        curve = self.of(row).curve
        return sum(curve) / len(curve) if curve else math.inf

    def rise(self, row: Row | Settings) -> float:
        """How far the smoothed training loss ever rose above its lowest value before, as a share."""
        lowest, worst = math.inf, 0.0
        for value in self.smoothed(row):
            lowest = min(lowest, value)
            worst = max(worst, value / lowest - 1)
        return worst

    def unstable(self, row: Row | Settings) -> bool:
        return self.of(row).failure is not None or self.rise(row) > UNSTABLE_RISE

    def cpu_seconds(self) -> float:
        return self.other_cpu_seconds + sum(run.cpu_seconds for run in self.runs.values())

    def methods(self) -> list[str]:
        return list(METHODS)
