"""What the paper says about its methods, asked of the rows that are there: a rule decides about each claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..charts import number
from ..verdicts import FAILS, HOLDS, OPEN, Claim, compare, lower, percent
from .results import RowResult, Table

#: rows were made with one seed: perplexities closer than this are no difference
NOISE = 0.02
#: averages over the tasks closer than so many standard errors of their difference are none
STDERRS = 2.0
#: the largest ratio of a student's perplexity to its teacher's in the paper's table 2: LLaMA-13B on WikiText2
_PAPER_RATIO = 9.18 / 5.09
_ONEBIT = "onebit-best"


def worse_or_better(first: RowResult, second: RowResult) -> int:
    """1: the first row's average is higher by more than its errors allow; -1: lower; 0: neither, or not measured."""
    apart = first.average - second.average
    error = math.hypot(first.average_stderr, second.average_stderr)
    if not math.isfinite(apart) or abs(apart) <= STDERRS * error:
        return 0
    return 1 if apart > 0 else -1


def _missing(table: Table, names: Sequence[str]) -> str:
    return ", ".join(name for name in names if table.done(name) is None)


def _with_rows(names: Sequence[str], title: str, place: str, rule: str, judge: Callable[..., tuple[str, str]]):
    """A claim about rows, which is not decided while one of them is missing. judge: of the results, what was found and
    the verdict."""

    def make(table: Table) -> Claim:
        missing = _missing(table, names)
        if missing:
            return Claim(title, place, rule, f"missing: {missing}", OPEN)
        return Claim(title, place, rule, *judge(*(table.done(name) for name in names)))

    return make


def _perplexities(*rows: RowResult) -> str:
    return ", ".join(f"{row.name} {number(row.ppl)}" for row in rows)


def _lower_perplexity(first: RowResult, second: RowResult) -> tuple[str, str]:
    found = f"{_perplexities(first, second)}: {percent(first.ppl / second.ppl - 1)}"
    return found, lower(first.ppl, second.ppl, NOISE)


def _higher_average(first: RowResult, second: RowResult) -> tuple[str, str]:
    found = ", ".join(
        f"{row.name} {100 * row.average:.1f} ± {100 * row.average_stderr:.1f} %" for row in (first, second)
    )
    return found, {1: HOLDS, 0: OPEN, -1: FAILS}[worse_or_better(first, second)]


def _order(*rows: RowResult) -> tuple[str, str]:
    steps = [compare(a.ppl, b.ppl, NOISE) for a, b in zip(rows, rows[1:])]
    verdict = FAILS if 1 in steps else OPEN if 0 in steps else HOLDS
    return _perplexities(*rows), verdict


def _ratio(student: RowResult, teacher: RowResult) -> tuple[str, str]:
    found = student.ppl / teacher.ppl
    return f"{found:.2f} times", HOLDS if found <= _PAPER_RATIO else FAILS


def _lowest(first: RowResult, *others: RowResult) -> tuple[str, str]:
    best = min(others, key=lambda row: row.ppl)
    return _perplexities(first, *others), lower(first.ppl, best.ppl, NOISE)


_PERPLEXITY_RULE = f"Perplexity is lower by more than {100 * NOISE:.0f} %"
_AVERAGE_RULE = f"The average is higher by more than {STDERRS:g} standard errors of the difference"

CLAIMS: dict[str, Callable[[Table], Claim]] = {
    "order": _with_rows(
        (_ONEBIT, "omniquant-2", "llm-qat-2", "gptq-2"),
        "OneBit at 1 bit, then OmniQuant, LLM-QAT and GPTQ at 2 bits", "table 2, perplexity",
        f"Each has a lower perplexity than the next by more than {100 * NOISE:.0f} %", _order,
    ),
    "paper-order": _with_rows(
        ("onebit-paper", "omniquant-2", "llm-qat-2", "gptq-2"),
        "The same with the paper's own recipe", "table 2, perplexity",
        f"Each has a lower perplexity than the next by more than {100 * NOISE:.0f} %", _order,
    ),
    "omniquant": _with_rows(
        (_ONEBIT, "omniquant-2"), "OneBit at 1 bit answers better than OmniQuant at 2", "table 2, average",
        _AVERAGE_RULE, _higher_average,
    ),
    "gptq": _with_rows(
        (_ONEBIT, "gptq-2"), "OneBit at 1 bit answers better than GPTQ at 2", "table 2, average",
        _AVERAGE_RULE, _higher_average,
    ),
    "llm-qat": _with_rows(
        (_ONEBIT, "llm-qat-2"), "OneBit at 1 bit answers better than LLM-QAT at 2", "table 2, average",
        _AVERAGE_RULE, _higher_average,
    ),
    "ratio": _with_rows(
        ("onebit-best-full", "teacher"),
        f"A OneBit student's perplexity is at most {_PAPER_RATIO:.2f} times its teacher's", "table 2",
        "With the full budget, as the paper's largest ratio", _ratio,
    ),
    "one-bit": _with_rows(
        (_ONEBIT, "rtn-1", "gptq-1", "omniquant-1", "llm-qat-1", "bitnet"),
        "At 1 bit OneBit is the best of all methods", "section 4",
        "Its perplexity is lower than the lowest of the others by more than 2 %", _lowest,
    ),
    "bitnet": _with_rows(
        ("onebit-paper", "bitnet"), "OneBit is better than BitNet with the same transfer", "figure 6",
        _PERPLEXITY_RULE, _lower_perplexity,
    ),
    "recipe": _with_rows(
        (_ONEBIT, "onebit-paper"), "Our recipe is better than the paper's in the same minutes", "ours",
        _PERPLEXITY_RULE, _lower_perplexity,
    ),
    "chain": _with_rows(
        ("chain-2", "omniquant-2"), "A chain at 2 bits is better than OmniQuant at 2", "ours",
        _PERPLEXITY_RULE, _lower_perplexity,
    ),
    "minutes": _with_rows(
        ("onebit-best-full", _ONEBIT), "More minutes still help", "ours", _PERPLEXITY_RULE, _lower_perplexity,
    ),
}  # fmt: skip
