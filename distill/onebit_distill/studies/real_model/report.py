"""The report of `real-model`: Markdown with two charts, made of whatever rows there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ..charts import Axis, Line, line_chart, number
from ..page import Page, shown_command, table
from .claims import CLAIMS, NOISE, STDERRS
from .measure import METRICS
from .plan import METHODS, ROWS, Row
from .results import RowResult, Table

#: a row that took no time at all has no place on a logarithmic axis
_LEAST_MINUTES = 0.01

_NAMES = {
    "winogrande": "WinoGrande",
    "hellaswag": "HellaSwag",
    "piqa": "PIQA",
    "boolq": "BoolQ",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
}


class _Report(Page):
    def __init__(self, found: Table, folder: str) -> None:
        super().__init__(folder)
        self.table = found
        self.claims = [make(found) for make in CLAIMS.values()]


def _beginning(page: _Report) -> None:
    study = page.table.study
    plan = study["plan"]
    done = page.table.all_done(row.name for row in ROWS)
    page.add(
        "# The paper's table on one real model",
        f"Made by `python -m onebit_distill real-model`; every number and every verdict is computed from the results. "
        f"Teacher: `{study['teacher']}`, {study['parameters']:,} parameters. Every row is a `.obt` file that the engine "
        f"measured: perplexity of `{study['perplexity_file']}` (all of it, blocks of {study['context']:,} tokens, each "
        f"from nothing), and the first {plan['limit']:,} questions of six tasks, without examples. {len(done)} of "
        f"{len(ROWS)} rows are there.",
        f"All rows have the same texts ({', '.join(f'`{name}`' for name in study['data'])}). GPTQ, OmniQuant and the "
        f"blocks of our recipe see the same {plan['calibration_tokens']:,} tokens of them, in sequences of "
        f"{plan['block']}; what is trained gets {plan['minutes']:g} minutes on the clock, one row "
        f"{plan['full_minutes']:g}. That is far less than the paper's runs had, and favours whatever learns fast.",
        f"Bits are those a weight of the linears takes with every scale counted at 16 bits; embedding and head are not "
        f"counted, and are int8 in every file. Perplexities less than {100 * NOISE:.0f} % apart, and averages less than "
        f"{STDERRS:g} standard errors of their difference, count as no difference: every row was made once.",
    )
    _absent(page)


def _absent(page: _Report) -> None:
    """Rows that are missing, and those that failed, by name."""
    results = page.table.results
    missing = [row.name for row in ROWS if row.name not in results]
    if missing:
        page.add(f"**Missing rows:** {', '.join(missing)}.")
    failed = [result for result in results.values() if not result.is_done]
    if failed:
        lines = [f"- {each.name}: {each.failure['code']}: {each.failure['message']}" for each in failed if each.failure]
        page.add("**Failed rows:**", "\n".join(lines))


def _verdicts(page: _Report) -> None:
    page.add(
        "## What holds here",
        table(
            ["claim", "said in", "rule", "here", "found"],
            [[claim.title, claim.place, claim.rule, claim.verdict, claim.found] for claim in page.claims],
            left=5,
        ),
    )


def _bits(row: RowResult) -> str:
    return f"{row.made.bits:.2f}"


def _perplexity(row: RowResult) -> str:
    return f"{row.ppl:.2f}" if row.ppl < 1000 else number(row.ppl)


def _rows(page: _Report) -> list[tuple[Row, RowResult]]:
    return [(row, found) for row in ROWS if (found := page.table.done(row.name)) is not None]


def _quality(page: _Report) -> None:
    page.add("## Quality")
    head = ["row", "bits a weight", "perplexity", *(_NAMES[name] for name in METRICS), "average"]
    body = []
    for row, found in _rows(page):
        scores = [f"{100 * found.tasks[name].value:.1f}" for name in METRICS]
        average = f"{100 * found.average:.2f} ± {100 * found.average_stderr:.2f}"
        body.append([row.label, _bits(found), _perplexity(found), *scores, average])
    errors = [100 * task.stderr for _, found in _rows(page) for task in found.tasks.values()]
    said = f" One task has a standard error of {min(errors):.1f} to {max(errors):.1f}." if errors else ""
    metrics = ", ".join(_NAMES[name] for name, metric in METRICS.items() if metric == "acc_norm")
    page.add(table(head, body), f"Accuracies in per cent; of {metrics} by answers' length, as the paper's average.{said}")


def _lines(page: _Report, x: Callable[[RowResult], float]) -> list[Line]:
    """Perplexity of each method's rows over x, the teacher's as a level."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row, found in _rows(page):
        if row.method != "teacher":
            lines.setdefault(METHODS[row.method], []).append((x(found), found.ppl))
    made = [Line(name, sorted(points)) for name, points in lines.items()]
    teacher = page.table.done("teacher")
    return made + ([] if teacher is None else [Line("teacher", [], level=teacher.ppl)])


def _charts(page: _Report) -> None:
    measured = [found for row, found in _rows(page) if row.method != "teacher" and math.isfinite(found.ppl)]
    if not measured:
        page.add("There are no charts before a row beside the teacher is there.")
        return
    title = f"Perplexity of {page.table.study['perplexity_file']}"
    y = Axis("perplexity", log=True)
    page.chart(
        "bits", "Perplexity by bits a weight",
        line_chart(f"{title} by bits", Axis("bits a weight, scales counted"), y, _lines(page, lambda row: row.made.bits)),
    )  # fmt: skip
    minutes = _lines(page, lambda row: max(row.minutes, _LEAST_MINUTES))
    page.chart(
        "minutes", "Perplexity by minutes of making",
        line_chart(f"{title} by minutes", Axis("minutes that making it took", log=True), y, minutes),
    )  # fmt: skip


def _machines(page: _Report) -> list[str]:
    """What the rows that were given minutes were made on; each machine with its rows where there were several."""
    made: dict[str, list[str]] = {}
    for row, found in _rows(page):
        if row.trained and found.made.machine:
            made.setdefault(found.made.machine, []).append(row.name)
    if len(made) == 1:
        return [f"All that got minutes was made on: {next(iter(made))}."]
    lines = [f"- {which}: {', '.join(names)}" for which, names in made.items()]
    told = "What got minutes was made on several machines, whose minutes are not of the same worth:"
    return [told, "\n".join(lines)] if lines else []


def _making(page: _Report) -> None:
    page.add("## How they were made")
    head = ["row", "remarks", "minutes", "tokens trained on", "tokens calibrated on", "file, MB"]
    body = []
    for row, found in _rows(page):
        made = found.made
        remarks = list(made.notes)
        if made.stored:
            remarks.append(f"dense weights in {made.stored}, at most {100 * made.stored_error:.2g} % of a row's largest off")
        body.append(
            [row.label, "; ".join(remarks), f"{found.minutes:.1f}", f"{made.tokens:,}", f"{made.calibration_tokens:,}",
             f"{made.file_bytes / 1e6:.0f}"]
        )  # fmt: skip
    page.add(table(head, body, left=2))
    page.add(
        "Tokens trained on count as often as they were seen. A file of dense weights says nothing about sizes: it holds "
        "what the codes stand for, as near as rows of int8 come to it.",
        "All options of each row are in `rows/NAME.json`.",
        *_machines(page),
    )


def _again(page: _Report) -> None:
    page.add(
        "## How to repeat",
        f"```sh\n{shown_command(page.table.study['command'])}\n```",
        "The command goes on where it was stopped; `--rows` picks some rows.",
    )


def write_report(found: Table, path: Path) -> None:
    """`path`, and its charts in a folder beside it. Raises DistillError as writing files does."""
    page = _Report(found, path.stem)
    for section in (_beginning, _verdicts, _quality, _charts, _making, _again):
        section(page)
    page.write(path)
