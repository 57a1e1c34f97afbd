"""A training run's folder: what it was started with, so that it can go on and be exported without being told again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.teacher_text import TeacherText
from ..errors import DistillError
from ..model.config import LlamaConfig
from ..model.linear import SignOptions
from ..model.llama import Llama
from ..model.starts import linear_factory
from ..system.atomic_file import file_error, writing_atomically
from .checkpoint import load_weights
from .settings import Settings

#: options that may change between two parts of one run: none of them changes what was learned so far
_MAY_CHANGE = {
    "steps", "epochs", "decay", "min_lr", "micro_batch", "device", "threads", "compile", "gradient_checkpointing",
    "sharding", "log_every", "validate_every", "checkpoint_every", "keep", "validation_blocks", "minutes",
}  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """`run.json`"""

    settings: Settings
    config: LlamaConfig
    #: provenance of the teacher: source, format, sha256, files
    teacher: dict[str, Any]
    #: SHA-256 of the training ids
    data_sha256: str
    command: str
    #: what the command was told besides settings, by option: how `reconstruct` fits blocks; None: not recorded
    more: dict[str, Any] | None = None
    #: share of the texts that is not trained on: none where there are texts for validation; None: not recorded
    held_out: float | None = None


def sign_options(settings: Settings) -> SignOptions:
    return SignOptions(settings.layernorm, settings.sign_gradient, settings.zero_is_zero, settings.fold_scales,
                       settings.column)  # fmt: skip


def open_run(run: Path, record: RunRecord, writes: bool) -> None:
    """Begins a run's folder, or checks that it is one of the same run.

    Raises DistillError ERR_RUN_DIFFERS, naming the first option that differs.
    """
    path = run / "run.json"
    if path.exists():
        before = read_run(run)
        found = {"teacher": before.teacher["sha256"], "data": before.data_sha256, **before.settings.to_dict()}
        now = {"teacher": record.teacher["sha256"], "data": record.data_sha256, **record.settings.to_dict()}
        if before.more is not None:
            # `train` has none of them, and goes on with nothing that `reconstruct` began
            names = {**before.more, **(record.more or {})}
            found.update({name: before.more.get(name) for name in names})
            now.update({name: (record.more or {}).get(name) for name in names})
        if before.held_out is not None:
            found["share held out for validation"] = before.held_out
            now["share held out for validation"] = record.held_out
        for name, value in now.items():
            if name not in _MAY_CHANGE and found[name] != value:
                message = f"{run} was begun with {name} = {found[name]!r}, now it is {value!r}"
                raise DistillError("ERR_RUN_DIFFERS", message, "Use the same options to go on, or another --out.")
    if writes:
        try:
            run.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise file_error(cause, run, "writing") from cause
        described = {
            "version": __version__,
            "command": record.command,
            "teacher": record.teacher,
            "data_sha256": record.data_sha256,
            "config": record.config.to_dict(),
            "settings": record.settings.to_dict(),
            "more": record.more or {},
            "held_out": record.held_out,
        }
        with writing_atomically(path) as file:
            file.write(json.dumps(described, indent=1).encode())


def read_run(run: Path) -> RunRecord:
    """Raises DistillError ERR_NO_RUN."""
    try:
        found = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return RunRecord(
            Settings(**found["settings"]),
            LlamaConfig.from_dict(found["config"]),
            found["teacher"],
            found["data_sha256"],
            found["command"],
            found.get("more"),
            found.get("held_out"),
        )
    except (OSError, ValueError, KeyError, TypeError) as cause:
        hint = "Give the --out folder of `train`, `reconstruct` or `stories`."
        raise DistillError("ERR_NO_RUN", f"{run} is not the folder of a training run", hint) from cause


def save_text(run: Path, text: TeacherText) -> None:
    """Keeps the tokenizer with the run: an export then needs no teacher."""
    kept = {"tokenizer": text.tokenizer_json, "config": text.config, "chat_template": text.chat_template}
    with writing_atomically(run / "text.json") as file:
        file.write(json.dumps(kept, ensure_ascii=False).encode())


def load_text(run: Path) -> TeacherText | None:
    path = run / "text.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return TeacherText(kept["tokenizer"], kept["config"], kept["chat_template"])


def empty_student(record: RunRecord) -> Llama:
    """A student of the run's shape with weights that mean nothing yet."""
    return Llama(record.config, linear_factory(record.settings.kind, sign_options(record.settings)))


def load_student(run: Path) -> tuple[Llama, RunRecord, int]:
    """The student of the last checkpoint (its moving average where one is kept), and that checkpoint's step."""
    record = read_run(run)
    step, weights = load_weights(run)
    model = empty_student(record)
    try:
        model.load_state_dict(weights)
    except RuntimeError as cause:
        raise DistillError(
            "ERR_CHECKPOINT", f"{run}: the checkpoint is not of this model ({str(cause)[:200]})"
        ) from cause
    return model.eval(), record, step
