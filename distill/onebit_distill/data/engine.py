"""Texts by this project's own engine: `onebit texts` in a process of its own, several times as fast as PyTorch on a CPU.

Orders go in and texts come out as lines of JSON. Numbers that are drawn are the engine's own, so a seed means other texts
than with PyTorch; which of the two wrote a folder stands in its `generate.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DistillError

#: auto: the engine where there is no GPU, PyTorch where there is one or where the engine cannot be had
ENGINES = ("auto", "onebit", "torch")
#: as `onebit texts` knows them
ACTIVATIONS = ("int8", "f32")
#: a step of the engine has at most so many texts
_MOST_TEXTS = 256
_MOST_TEMPERATURE = 100
_HINT = "Build the engine (`npm ci` in the project's folder) or name its folder in ONEBIT_ENGINE; or use --engine torch."
#: seconds in which a process that is not wanted any more may end by itself
_GRACE = 5


def find_engine() -> list[str]:
    """The words that start `onebit`: of the folder in ONEBIT_ENGINE, of the repository around this package, or on the
    PATH. Raises DistillError ERR_ENGINE."""
    named = os.environ.get("ONEBIT_ENGINE")
    for folder in [Path(named)] if named else [Path(__file__).resolve().parents[3]]:
        script = folder / "dist" / "cli" / "onebit.js"
        if script.exists():
            node = shutil.which("node")
            if node is None:
                raise DistillError("ERR_ENGINE", "node was not found", "Install Node 20.19 or newer, or use --engine torch.")
            return [node, str(script)]
        if named:
            raise DistillError("ERR_ENGINE", f"ONEBIT_ENGINE: {script} does not exist", _HINT)
    installed = shutil.which("onebit")
    if installed is None:
        raise DistillError("ERR_ENGINE", "the engine was not found", _HINT)
    return [installed]


def recorded_engine(folder: Path) -> str | None:
    """Who wrote the texts that a folder has; None: nobody did. Folders from before there was a choice are PyTorch's."""
    try:
        return json.loads((folder / "generate.json").read_text(encoding="utf-8")).get("engine", "torch")
    except (OSError, ValueError, AttributeError):
        return None


def engine_can(options: Any) -> bool:
    """Whether the engine knows these GenerateOptions: only extreme temperatures are PyTorch's alone."""
    return options.temperature <= _MOST_TEMPERATURE


def _last_line(file: Any) -> str:
    """What a process said last on its standard error, which went to a file."""
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


class TextEngine:
    """A running `onebit texts`. Made by `open_engine`."""

    def __init__(self, process: subprocess.Popen, errors: Any, activations: str) -> None:
        self._process, self._errors = process, errors
        self.activations = activations
        #: what the engine says about the model that it has loaded: vocab_size, context_length, isa, threads …
        self.model: dict[str, Any] = self._read("before it was ready").get("model") or {}

    @property
    def process_id(self) -> int:
        return self._process.pid

    def _failed(self, when: str) -> DistillError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        status = self._process.returncode
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        message = f"the engine ended {when} ({how}): {_last_line(self._errors)}"
        return DistillError("ERR_ENGINE", message, "The same command goes on with what is missing.")

    def _read(self, when: str) -> dict[str, Any]:
        """The next line. when: for the error of an engine that has ended instead."""
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failed(when)
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError) as cause:
            raise DistillError("ERR_ENGINE", f"the engine wrote what is no text: {line[:80]!r}") from cause

    def _order(self, order: dict[str, Any]) -> None:
        # To one that has died nothing is told, but texts may lie in the pipe: reading finds its end behind them.
        with suppress(OSError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def texts(self, orders: Iterable[dict[str, Any]], at_once: int) -> Iterator[tuple[int, list[int]]]:
        """Yields (sequence number, ids) of the ordered texts as they end. at_once: how many the engine writes at a time;
        as many more wait there, so that it never waits for us.

        Raises DistillError ERR_ENGINE when it ends before them; those that were yielded are whole.
        """
        waiting, ordered, finished = iter(orders), set(), 0
        wanted = 2 * at_once
        while True:
            for order in islice(waiting, wanted):
                ordered.add(order["sequence"])
                self._order(order)
            wanted = 0
            if not ordered:
                return
            line = self._read(f"after {finished} texts")
            if "sequence" not in line:
                continue  # a sign of life
            if line["sequence"] not in ordered:
                raise DistillError("ERR_ENGINE", f"the engine wrote a text that nobody ordered: {line['sequence']!r}")
            ordered.discard(line["sequence"])
            finished, wanted = finished + 1, 1
            yield line["sequence"], line["ids"]


def _converted(words: list[str], teacher: Path, folder: str) -> Path:
    """A llama2.c file as a `.obt` file with the same floats, in a folder that goes with the engine."""
    made = Path(folder) / "teacher.obt"
    options = ["--type", "f32", "--embed", "f32", "--tokenizer", "none", "-q"]
    done = subprocess.run([*words, "convert", str(teacher), "-o", str(made), *options], capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise DistillError("ERR_ENGINE", f"the engine does not read {teacher}: {said[-1]}", "Use --engine torch.")
    return made


@contextmanager
def open_engine(
    teacher: str | os.PathLike, options: Any, ends: list[int], activations: str, threads: int | None = None
) -> Iterator[TextEngine]:
    """Starts the engine on a teacher (GGUF, Hugging Face folder or llama2.c file), and ends it with the block.

    options: GenerateOptions; ends: ids that end a text; threads: None: as many as the process has cores. Raises
    DistillError ERR_ENGINE.
    """
    words, source = find_engine(), Path(teacher)
    with tempfile.TemporaryDirectory(prefix="onebit-") as folder, tempfile.TemporaryFile() as errors:
        model = _converted(words, source, folder) if source.suffix == ".bin" else source
        command = [
            *words, "texts", str(model), "--length", str(options.length), "--activations", activations,
            "--temp", str(options.temperature), "--top-k", str(options.top_k),
            "--parallel", str(texts_at_once(options)), f"--stop={','.join(map(str, ends))}",
            *([] if threads is None else ["--threads", str(threads)]),
        ]  # fmt: skip
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        except OSError as cause:
            raise DistillError("ERR_ENGINE", f"{words[0]} does not start: {cause.strerror or cause}", _HINT) from cause
        try:
            yield TextEngine(process, errors, activations)
        finally:
            _end(process)


def texts_at_once(options: Any) -> int:
    return min(options.batch, _MOST_TEXTS)


def _end(process: subprocess.Popen) -> None:
    """Ends a process whatever it is doing: what it has not handed over is not wanted."""
    with suppress(OSError):
        process.stdin.close()
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
