"""The report of `baselines`: Markdown with SVG charts beside it, made of nothing but the results."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...model.linear import OneBitLinear
from ..bits import layer_bits
from ..charts import Axis, Line, bar_chart, line_chart, number
from ..page import Page, shown_command, table
from ..verdicts import percent
from .book import Book
from .claims import CLAIMS, recipe_shares
from .plan import (
    LONGER_RECIPES,
    METHODS,
    Row,
    chain_rows,
    half_rows,
    latent_rows,
    longer,
    loss_rows,
    recipe_rows,
    start_rows,
    step_rows,
    without_rows,
)

#: appendix A.7: bits per number of one linear of 4096 x 4096
_PAPER_BITS = 1.0073
#: for 7B, 155 million tokens in batches of 128 x 2048, 50 times (NanoQuant's count; the paper gives none)
_PAPER_STEPS = 29_700

_NOT_REPEATED = """## Not repeated here

- Zero-shot tasks and MMLU (tables 2, 4, figure 3): not to be expected of a model of this size.
- Comparisons over model sizes (figures 3 and 4, table 3), which need several teachers of one family.
- Training in fp16 as a whole: three runs are, for what the paper saw fail in it; all others are in f32.
- GPTQ, LLM-QAT and OmniQuant: rounding to nearest stands for what does not train."""


class _Page(Page):
    """With the book and its claims."""

    def __init__(self, book: Book, folder: str) -> None:
        super().__init__(folder)
        self.book = book
        self.claims = {name: make(book) for name, make in CLAIMS.items()}

    def claim(self, *names: str) -> None:
        """What was claimed, the rule, what was found, the verdict."""
        self.claimed(*(self.claims[name] for name in names))


def _beginning(page: _Page) -> None:
    book, sizes = page.book, page.book.study.sizes
    paper, teacher = book.study.paper, book.teacher
    parameters = sum(p.numel() for p in teacher.model.parameters())
    page.add(
        "# The paper's comparisons on a small model",
        f"Made by `python -m onebit_distill baselines`; every number and every verdict is computed from the results. "
        f"Teacher: `{Path(teacher.source).name}`, {parameters:,} parameters, perplexity "
        f"{number(book.teacher_scores.perplexity)} on {book.validation_tokens:,} tokens of validation text. Students "
        f"learn from the same {book.training_tokens:,} tokens of text, {paper.steps} steps of {paper.batch} sequences "
        f"of {paper.block} tokens ({paper.steps * paper.batch * paper.block:,} tokens a run). {len(book.runs)} runs "
        f"took {book.cpu_seconds() / 60:.0f} minutes of CPU time on one core, texts and measurements included.",
        f"“The paper's recipe” is `configs/paper.toml` with its sizes scaled: the warm-up is the same share of the "
        f"steps, and the logits loss, a sum over tokens there, keeps its weight per token. The paper's own runs have "
        f"about {_PAPER_STEPS / paper.steps:.0f} times as many steps, and few steps favour whatever learns fast: that "
        f"is why single choices are compared at lr {sizes.reference_rate:g}, the highest of the paper's figure 6, and "
        "why both recipes also ran longer.",
        f"Two perplexities count as different when they are more than **{100 * book.noise():.1f} %** apart: the most "
        "by which runs differ that have another seed (order of the texts) and nothing else, or 1 % if that is more. KL "
        "is the divergence of the student from its teacher in nats a token. Where no seeds are named, each run was "
        "made once, with seed 0. The best rate of a method is chosen by the same text that all are compared on, which "
        "flatters it a little; our recipe's options were chosen earlier, some of them with a teacher of this size.",
        "## What holds at this scale",
        table(
            ["claim", "said in", "here", "found"],
            [[claim.title, claim.place, claim.verdict, claim.found] for claim in page.claims.values()],
            left=4,
        ),
    )


def _rounding(page: _Page) -> None:
    book = page.book
    page.add("## Rounding to nearest (figure 1)")
    page.claim("rounding")
    widths = list(book.study.sizes.rounding_bits)
    found = {kind: [book.rounding[f"{kind} {b}"].perplexity for b in widths] for kind in ("even", "symmetric")}
    page.add(
        "Without training, one scale a row. Asymmetric: even levels from the smallest to the largest weight; "
        "symmetric: levels around 0, at 1 bit ± the mean magnitude.",
        table(["bits", *map(str, widths)], [["asymmetric", *found["even"]], ["symmetric", *found["symmetric"]]]),
    )
    best, ours = book.best_of_method("OneBit"), book.recipe("ours", book.study.sizes.seeds[0])[0]
    page.chart(
        "rounding",
        "Perplexity after rounding to 1 to 8 bits, beside OneBit students",
        line_chart(
            "Rounding to nearest, and 1-bit students",
            Axis("bits a weight", ticks=tuple(map(float, widths))),
            Axis("perplexity", log=True),
            [
                Line("rounded, asymmetric", list(zip(widths, found["even"], strict=True))),
                Line("rounded, symmetric", list(zip(widths, found["symmetric"], strict=True))),
                Line("OneBit, best rate", [], level=book.perplexity(best)),
                Line("our recipe", [], level=book.perplexity(ours)),
                Line("teacher", [], level=book.teacher_scores.perplexity),
            ],
        ),
    )


def _score_cells(book: Book, row: Row) -> list[Any]:
    perplexity = book.perplexity(row)
    return [perplexity, perplexity / book.teacher_scores.perplexity, book.kl(row)]


def _methods(page: _Page) -> None:
    book, sizes = page.book, page.book.study.sizes
    page.add("## Methods (table 2)")
    page.claim("ratio", "bitnet")
    rows: list[list[Any]] = [["teacher", "16", book.teacher_scores.perplexity, 1.0, 0.0]]
    for bits in sorted(b for b in sizes.rounding_bits if b <= 3):
        kind = min(("even", "symmetric"), key=lambda k, b=bits: book.rounding[f"{k} {b}"].perplexity)
        scores = book.rounding[f"{kind} {bits}"]
        share = scores.perplexity / book.teacher_scores.perplexity
        rows.append([f"rounded, {kind.replace('even', 'asymmetric')}", str(bits), scores.perplexity, share, scores.kl])
    named = {f"{name}, best rate": book.best_of_method(name) for name in METHODS}
    named["OneBit, best of the paper's rates"] = book.best(book.recipe("paper", sizes.seeds[0]))
    named["our recipe"] = book.recipe("ours", sizes.seeds[0])[0]
    for name, row in named.items():
        label = f"{name} ({row.settings.lr:g})" if row.settings.optimiser == "adamw" else name
        rows.append([label, f"{book.of(row).bits:.2f}", *_score_cells(book, row)])
    page.add(
        table(["method", "bits a weight", "perplexity", "times the teacher's", "KL"], rows),
        "Bits count scales as 16 bits each, which weighs much in linears this narrow. BitNet's latents are W itself, "
        "OneBit's in the paper's recipe 0.01 sign(W); BitNet has its LayerNorm before the product, OneBit behind it.",
    )


def _rates(page: _Page) -> None:
    book, sizes = page.book, page.book.study.sizes
    page.add("## Learning rates and LayerNorm (figure 6)")
    page.claim("sensitivity", "instability", "layernorm")
    body = []
    for method in METHODS:
        for row in book.method_rows(method):
            scores = book.of(row).scores
            largest = [math.inf] * 2 if scores is None else [scores.largest_output, scores.largest_product]
            calm = book.of(row).failure or f"{100 * book.rise(row):.0f} %"
            body.append([method, f"{row.marks['lr']:g}", book.perplexity(row), book.kl(row), calm, *largest])
    head = ["method", "lr", "perplexity", "KL", "largest rise of the training loss", "largest output"]
    page.add(table([*head, "largest product before h"], body, left=2))
    page.add(
        f"In fp16, whose largest number is 65,504, at lr {sizes.reference_rate:g}:",
        table(["run", "perplexity", "KL", "how it ended"], [_half_cells(book, row) for row in half_rows(book.study)]),
    )
    lines = [
        Line(method, [(row.marks["lr"], book.perplexity(row)) for row in book.method_rows(method)])
        for method in METHODS
    ]
    lines.append(Line("our recipe", [], level=book.perplexity(book.recipe("ours", sizes.seeds[0])[0])))
    page.chart(
        "rates",
        "Perplexity by learning rate for OneBit, OneBit without LayerNorm and BitNet",
        line_chart(
            "The paper's recipe at several learning rates",
            Axis("learning rate", log=True, ticks=tuple(sizes.rates)),
            Axis("perplexity", log=True),
            lines,
        ),
    )
    for method in ("OneBit", "BitNet"):
        rows = [row for row in book.method_rows(method) if row.marks["lr"] >= 4e-4 * 0.999]
        named = {f"lr {row.marks['lr']:g}": row for row in rows}
        page.chart(
            f"course-{method.lower()}", f"Training loss of {method}", _course(book, f"{method}: training", named)
        )


def _course(book: Book, title: str, rows: dict[str, Row]) -> str:
    lines = [
        Line(name, [(step, value) for step, value in enumerate(book.smoothed(row), 1)], marked=False)
        for name, row in rows.items()
    ]
    return line_chart(f"{title} loss (KL, smoothed)", Axis("step"), Axis("nats a token", log=True), lines)


def _starts(page: _Page) -> None:
    book = page.book
    page.add("## Starts (figure 5, proposition 2)")
    page.claim("proposition", "decomposition", "nmf")
    body = []
    for row in start_rows(book.study):
        name = row.marks["start"]
        before = book.starts[name]
        error = sum(before["errors"]) / len(before["errors"])
        without = book.starts[f"{name} without LayerNorm"]["perplexity"]
        body.append(
            [name, error, before["perplexity"], without, book.mean_curve(row), book.perplexity(row), book.kl(row)]
        )
    page.add(
        f"At lr {book.study.sizes.reference_rate:g}. Before the first step: the relative error of the linears, and the "
        "perplexity with LayerNorm and without it. SVD and NMF find the same product; they share its scale between g "
        "and h in different ways.",
        table(
            ["start", "error", "before, LayerNorm", "before, without", "mean training loss", "perplexity", "KL"], body
        ),
    )
    named = {row.marks["start"]: row for row in start_rows(book.study)}
    page.chart("starts", "Training loss by start", _course(book, "Starts: training", named))


def _loss_name(alpha: float | str) -> str:
    if alpha == "attention":
        return "+ hidden states, α = 1, + attention"
    return f"+ hidden states, α = {alpha:g}" if alpha else "logits alone"


def _half_cells(book: Book, row: Row) -> list[Any]:
    return [row.label, book.perplexity(row), book.kl(row), book.of(row).failure or "as it should"]


def _losses(page: _Page) -> None:
    book = page.book
    page.add("## Losses (table 6)")
    page.claim("hidden", "alpha", "attention")
    rows = [[_loss_name(row.marks["alpha"]), *_score_cells(book, row)] for row in loss_rows(book.study)]
    page.add(table(["loss", "perplexity", "times the teacher's", "KL"], rows))


def _latents(page: _Page) -> None:
    book = page.book
    page.add("## Latent magnitudes (not in the paper)")
    page.claim("magnitudes")
    words = {"official": "0.01 sign(W)", "magnitude": "W, scaled", "relative": "W / (h gᵀ), scaled"}
    body = [
        [words[row.marks["latent"]], f"{row.marks['mean']:g}", book.mean_curve(row), *_score_cells(book, row)]
        for row in latent_rows(book.study)
    ]
    head = ["latents", "mean magnitude", "mean training loss", "perplexity", "times the teacher's", "KL"]
    page.add(
        "In the paper's recipe at the reference rate, with LayerNorm. AdamW moves a latent by at most about the rate a "
        "step, so larger latents flip later.",
        table(head, body, left=2),
    )


def _chains(page: _Page) -> None:
    book, sizes = page.book, page.book.study.sizes
    ours = book.recipe("ours", sizes.seeds[0])[0]
    page.add("## Bits per weight: chains of two sign matrices (not in the paper)")
    rows = [("OneBit", ours), *((f"chain:{row.marks['bits']:g}", row) for row in chain_rows(book.study))]
    body = [[name, f"{book.of(row).bits:.2f}", *_score_cells(book, row)] for name, row in rows]
    page.add(
        "Our recipe with other linears; `chain:BITS` counts signs only, the second column scales too.",
        table(["linears", "bits a weight, scales counted", "perplexity", "times the teacher's", "KL"], body),
    )
    chains = sorted((book.of(row).bits, book.perplexity(row)) for row in chain_rows(book.study))
    few = [bits for bits in sizes.rounding_bits if bits <= 4]
    page.chart(
        "chains",
        "Perplexity by bits per weight",
        line_chart(
            "Bits per weight, scales counted",
            Axis("bits a weight"),
            Axis("perplexity", log=True),
            [
                Line("chains, our recipe", chains),
                Line("OneBit, our recipe", [(book.of(ours).bits, book.perplexity(ours))]),
                Line("rounding, better kind", [(float(bits), book.rounding_best(bits)) for bits in few]),
                Line("teacher", [], level=book.teacher_scores.perplexity),
            ],
        ),
    )


def _recipes(page: _Page) -> None:
    book, sizes = page.book, page.book.study.sizes
    page.add("## The paper's recipe against ours")
    page.claim("target", "target_longer")
    body = []
    for name, rate in [("ours", None), *(("paper", rate) for rate in sizes.paper_rates)]:
        rows = [r for r in recipe_rows(book.study) if r.marks["recipe"] == name and r.marks.get("lr") == rate]
        values = [book.perplexity(row) for row in rows]
        mean_kl = sum(book.kl(row) for row in rows) / len(rows)
        label = "ours" if rate is None else f"paper's, lr {rate:g}"
        body.append([label, *values, sum(values) / len(values), mean_kl])
    shares = recipe_shares(book)
    body.append(["ours against the best of the paper's", *(percent(s - 1) for s in shares), "", ""])
    seeds = [f"seed {seed}" for seed in sizes.seeds]
    page.add("Perplexity by seed.", table(["recipe", *seeds, "mean", "mean KL"], body))
    times = (1, sizes.longer)
    body = [
        [_longer_label(page, name), *(book.perplexity(longer(book.study, name, t)) for t in times)]
        for name in LONGER_RECIPES
    ]
    tokens = book.study.paper.steps * book.study.paper.batch * book.study.paper.block
    page.add(
        f"With {sizes.longer} times the steps (seed {book.study.paper.seed}):",
        table(["recipe", *(f"{t * tokens:,} tokens" for t in times)], body),
    )


def _longer_label(page: _Page, name: str) -> str:
    study = page.book.study
    return {"ours": "ours", "paper": f"paper's, lr {study.paper.lr:g}"}.get(
        name, f"paper's, lr {study.sizes.reference_rate:g}"
    )


def _steps(page: _Page) -> None:
    book, sizes = page.book, page.book.study.sizes
    page.add("## From the paper's recipe to ours, one change after the other")
    noise, ours = book.noise(), book.perplexity(book.study.ours)
    body, bars = [], []
    columns = [[row for row in step_rows(book.study) if row.marks["seed"] == seed] for seed in sizes.step_seeds]
    taken_back = {row.marks["count"]: book.perplexity(row) for row in without_rows(book.study)}
    before = math.nan
    for count, rows in enumerate(zip(*columns, strict=True)):
        values = [book.perplexity(row) for row in rows]
        mean = sum(values) / len(values)
        change = "" if count == 0 else percent(mean / before - 1)
        back = "" if count == 0 else percent(taken_back[count] / ours - 1)
        body.append([rows[0].label, mean, change, back])
        bars.append((rows[0].label, mean))
        before = mean
    page.add(
        f"From lr {book.study.paper.lr:g} (LLaMA-7B's). A change's worth depends on what came before it; the last "
        f"column says how much worse our whole recipe becomes when this one is taken back. Less than "
        f"{100 * noise:.1f} % is noise.",
        table(["recipe", "perplexity", "against the line before", "ours without it"], body),
    )
    page.add(_weightiest(page, taken_back, ours))
    finite = [(name, value) for name, value in bars if math.isfinite(value)]
    page.chart("steps", "Perplexity after each change", bar_chart("Perplexity, one change after the other", finite))


def _weightiest(page: _Page, taken_back: dict[int, float], ours: float) -> str:
    """What the last column says, in words."""
    noise, changes = page.book.noise(), page.book.study.changes
    order = sorted(taken_back, key=lambda count: -taken_back[count])
    needed = [c for c in order if taken_back[c] / ours > 1 + noise]
    useless = [c for c in order if 1 / (1 + noise) <= taken_back[c] / ours <= 1 + noise]
    harmful = [c for c in order if taken_back[c] / ours < 1 / (1 + noise)]
    words = []
    for counts, said in (
        (needed, "Our recipe needs, the most first"),
        (useless, "Makes no difference any more once the others are there"),
        (harmful, "Would better be left out at this size"),
    ):
        if counts:
            words.append(f"{said}: {'; '.join(changes[c - 1].name for c in counts)}.")
    return " ".join(words)


def _bits_of_one_linear(book: Book) -> str:
    """Appendix A.7's count, made again: arithmetic, in which nothing was measured."""
    size = 4096
    stored, weights = layer_bits(OneBitLinear(size, size))
    mine = book.of(book.best_of_method("OneBit")).bits
    return (
        f"Of a linear of {size} x {size}, signs in 1 bit and g and h in 16 are {stored / (weights + 2 * size):.4f} bits "
        f"for each number of all three (the paper says {_PAPER_BITS}), or {stored / weights:.4f} per weight. The small "
        f"linears of this model have {mine:.2f}. That is arithmetic and can only hold, so it is not among the claims."
    )


def _end(page: _Page) -> None:
    page.add("## Sizes (appendix A.7)")
    page.add(_bits_of_one_linear(page.book))
    page.add(
        _NOT_REPEATED,
        "## How to repeat",
        f"```sh\n{shown_command(page.book.command)}\n```",
        "The command goes on where it was stopped; a configuration with other options runs only what is new.",
    )


_SECTIONS: tuple[Callable[[_Page], None], ...] = (
    _beginning,
    _rounding,
    _methods,
    _rates,
    _starts,
    _losses,
    _latents,
    _chains,
    _recipes,
    _steps,
    _end,
)


def write_report(book: Book, path: Path) -> None:
    """`path` and, in a folder of the same name without `.md`, its charts. Raises DistillError as writing files does."""
    page = _Page(book, path.stem)
    for section in _SECTIONS:
        section(page)
    page.write(path)
