"""What a run says about itself: JSON lines, a line on the terminal, and a plot at the end."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ..system.atomic_file import file_error, writing_atomically
from ..system.clock import clock


class Metrics:
    """A file of JSON lines, one per logged step or validation. Raises DistillError as `file_error`."""

    def __init__(self, path: Path, writes: bool) -> None:
        self.path, self.writes = path, writes

    def cut(self, step: int) -> None:
        """Forgets what lies behind the checkpoint that training goes on from, and a last line that was torn."""
        if not self.writes or not self.path.exists():
            return
        kept = [json.dumps(entry) + "\n" for entry in read_metrics(self.path) if entry["step"] <= step]
        with writing_atomically(self.path) as file:
            file.write("".join(kept).encode())

    def write(self, entry: dict[str, Any]) -> None:
        if not self.writes:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as cause:
            raise file_error(cause, self.path, "writing") from cause


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


class ProgressLine:
    """`train 120/3000  loss 2.345 (logits 2.1, hidden 0.2)  val ppl 12.3  5400 tokens/s  0:42:10 left` on stderr.

    One line that is written over on a terminal; elsewhere one line every half minute.
    """

    _SECONDS_BETWEEN_LINES = 30.0

    def __init__(self, label: str, steps: int, tokens_per_step: int, prints: bool) -> None:
        self.label, self.steps, self.tokens_per_step, self.prints = label, steps, tokens_per_step, prints
        self.terminal = sys.stderr.isatty()
        self.seconds: float | None = None
        self.validation: float | None = None
        self.printed, self.shown = 0.0, False
        self.step = 0

    def start(self, step: int) -> None:
        self.step = step

    def note(self, text: str) -> None:
        if self.prints:
            print(f"{self.label}: {text}", file=sys.stderr)

    def validated(self, perplexity: float) -> None:
        self.validation = perplexity

    def advance(self, seconds: float, entry: dict[str, Any]) -> float:
        """Tells of one more step; returns tokens per second, smoothed over about 20 steps."""
        self.step += 1
        self.seconds = seconds if self.seconds is None else 0.95 * self.seconds + 0.05 * seconds
        speed = self.tokens_per_step / self.seconds
        now = time.monotonic()
        wait = 0.2 if self.terminal else self._SECONDS_BETWEEN_LINES
        if self.prints and (now - self.printed >= wait or self.step == self.steps):
            self.printed, self.shown = now, True
            self._print(entry, speed)
        return round(speed, 1)

    def _print(self, entry: dict[str, Any], speed: float) -> None:
        shown = {"step", "loss", "lr_share", "grad_norm", "loss_scale"}
        parts = ", ".join(f"{name} {value:.3f}" for name, value in entry.items() if name not in shown)
        text = f"{self.label} {self.step}/{self.steps}  loss {entry['loss']:.4f} ({parts})"
        if self.validation is not None:
            text += f"  val ppl {self.validation:.3f}"
        text += f"  {speed:.0f} tokens/s  {clock((self.steps - self.step) * self.seconds)} left"
        print(
            f"\r\x1b[K{text}" if self.terminal else text, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )

    def finish(self) -> None:
        if self.prints and self.terminal and self.shown:
            print(file=sys.stderr)


def plot(metrics: Path, target: Path, title: str) -> None:
    """Loss, its parts and validation perplexity over the steps, as SVG. matplotlib is imported here only."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    entries = read_metrics(metrics)
    steps = [entry for entry in entries if "loss" in entry]
    checks = [entry for entry in entries if "validation_perplexity" in entry]
    if not steps:
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    other = {"step", "lr_share", "grad_norm", "loss_scale", "tokens", "tokens_per_s"}
    for name in [name for name in steps[-1] if name not in other]:
        left.plot([e["step"] for e in steps], [e.get(name) for e in steps], label=name, linewidth=1)
    left.set(xlabel="step", ylabel="loss", title=title, yscale="log")
    left.legend()
    if checks:
        right.plot([e["step"] for e in checks], [e["validation_perplexity"] for e in checks], marker=".")
    right.set(xlabel="step", ylabel="validation perplexity", yscale="log")
    figure.tight_layout()
    with writing_atomically(target) as file:
        figure.savefig(file, format="svg")
    pyplot.close(figure)
