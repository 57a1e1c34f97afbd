"""Perplexity and tasks of a file by the engine, in processes of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.engine import find_engine
from ...errors import DistillError
from .results import TaskScore

#: the paper's tasks, each by the metric that its average takes
METRICS = {
    "winogrande": "acc",
    "hellaswag": "acc_norm",
    "piqa": "acc",
    "boolq": "acc",
    "arc_easy": "acc_norm",
    "arc_challenge": "acc_norm",
}
#: blocks of WikiText-2, the GPTQ convention
CONTEXT = 2048
_HINT = 'Build the engine (`npm ci`), and name it: --engine "node /path/to/dist/cli/onebit.js".'


@dataclass(frozen=True)
class Engine:
    """The words that start `onebit`. Raises DistillError ERR_ENGINE where it fails, with its own last words."""

    words: tuple[str, ...]
    #: that compute; 0: as the engine chooses
    threads: int = 0

    @classmethod
    def find(cls, given: str | None, threads: int = 0) -> Engine:
        """given: a command line; None: this repository's own, or the one on the PATH. It is started once."""
        words = find_engine() if given is None else shlex.split(given)
        if not words or shutil.which(words[0]) is None:
            raise DistillError("ERR_ENGINE", f"the engine {given!r} was not found", _HINT)
        engine = cls(tuple(words), threads)
        engine._run("--version")
        return engine

    def _run(self, *arguments: str) -> str:
        """What it wrote on its standard output."""
        command = [*self.words, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
        except OSError as cause:
            message = f"{self.words[0]} does not start: {cause.strerror or cause}"
            raise DistillError("ERR_ENGINE", message, _HINT) from cause
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            # node ends what it says about a file that is missing with its own version
            said = next((line for line in lines if "Error:" in line or "ERR_" in line), lines[-1])
            message = f"`{shlex.join(self.words)} {arguments[0]}` ended with status {done.returncode}: {said}"
            raise DistillError("ERR_ENGINE", message, _HINT if arguments[0] == "--version" else None)
        return done.stdout

    def _json(self, *arguments: str) -> Any:
        threads = ["--threads", str(self.threads)] if self.threads else []
        said = self._run(*arguments, *threads, "--json")
        try:
            return json.loads(said)
        except ValueError as cause:
            message = f"`{arguments[0]}` of the engine wrote what is no JSON: {said[:80]!r}"
            raise DistillError("ERR_ENGINE", message, "The study needs an engine of this version.") from cause

    def perplexity(self, model: Path, text: Path, context: int) -> dict[str, Any]:
        """Over consecutive blocks of `context` tokens of the whole text, each from nothing."""
        found = self._json("perplexity", str(model), str(text), "--ctx", str(context))
        if not isinstance(found, dict) or not isinstance(found.get("perplexity"), (int, float)):
            raise DistillError("ERR_ENGINE", f"`perplexity` of the engine gave no perplexity: {str(found)[:80]}")
        return found

    def tasks(self, model: Path, data: Path, limit: int, kept: Path) -> dict[str, TaskScore]:
        """The first `limit` questions of each task. kept: a folder of answers, from which an interrupted call goes on."""
        names = ["--data", str(data), "--tasks", ",".join(METRICS), "--limit", str(limit), "--out", str(kept)]
        found = self._json("eval", str(model), *names)
        try:
            tasks = found[0]["tasks"]
            return {name: _score(tasks[name], metric) for name, metric in METRICS.items()}
        except (KeyError, TypeError, IndexError) as cause:
            raise DistillError("ERR_ENGINE", f"`eval` of the engine gave no scores of all tasks ({cause!r})") from cause


def _score(task: dict[str, Any], metric: str) -> TaskScore:
    return TaskScore(metric, float(task[metric]["value"]), float(task[metric]["stderr"]), int(task["questions"]))
