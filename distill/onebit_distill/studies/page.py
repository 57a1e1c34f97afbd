"""A report: Markdown with SVG charts in a folder beside it."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..system.atomic_file import file_error, writing_atomically
from .charts import number
from .verdicts import Claim


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Markdown; the first `left` columns are words, the others numbers."""
    lines = [f"| {' | '.join(head)} |", "|" + "".join("---|" if i < left else "---:|" for i in range(len(head)))]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else "failed" if math.isinf(value) else number(value)
    return str(value).replace("|", "\\|")


def wrapped(part: str) -> str:
    """Prose in lines of 120; tables, headings, code and pictures as they are."""
    if part.startswith(("|", "#", "```", "![")):
        return part
    lines = []
    for line in part.split("\n"):
        inner = "  " if line.startswith("- ") else ""
        lines += textwrap.wrap(line, 120, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


class Page:
    """Sections of the report, and charts by file name."""

    def __init__(self, folder: str) -> None:
        """folder: that the charts lie in, beside the report."""
        self.folder = folder
        self.parts: list[str] = []
        self.charts: dict[str, str] = {}

    def add(self, *parts: str) -> None:
        self.parts += parts

    def chart(self, name: str, words: str, svg: str) -> None:
        self.charts[f"{name}.svg"] = svg
        self.add(f"![{words}]({self.folder}/{name}.svg)")

    def claimed(self, *claims: Claim) -> None:
        """What was claimed, the rule, what was found, the verdict."""
        for claim in claims:
            verdict = f"**{claim.title}** ({claim.place}): **{claim.verdict}**."
            self.add(f"{verdict}\\\nRule: {claim.rule}.\\\nFound: {claim.found}.")

    def text(self) -> str:
        return "\n\n".join(map(wrapped, self.parts)) + "\n"

    def write(self, path: Path) -> None:
        """`path` and, in a folder of the same name without `.md`, its charts. Raises DistillError as writing files
        does."""
        folder = path.with_name(path.stem)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise file_error(cause, folder, "writing") from cause
        for name, svg in self.charts.items():
            with writing_atomically(folder / name) as file:
                file.write(svg.encode())
        with writing_atomically(path) as file:
            file.write(self.text().encode())


def shown_command(command: str) -> str:
    """The command with files by their names: where they lay on the machine that made the report helps nobody."""
    words = shlex.split(command)
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)
