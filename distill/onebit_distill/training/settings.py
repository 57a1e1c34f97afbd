"""Every option of training in one place: name, range, table in a configuration file, and what it means.

A configuration file (TOML) has the tables named here; the command line has the same options as `--kebab-case`, which
win over the file. The defaults are ours; `configs/paper.toml` gives the official recipe.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import DistillError
from ..model.linear import SIGN_GRADIENTS
from ..model.starts import LATENTS, METHODS, StudentKind

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


def _option(
    table: str,
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> Any:
    checks = {"choices": choices, "least": least, "most": most, "above": above}
    return field(default=default, metadata={"table": table, "help": help, **checks})


@dataclass(frozen=True)
class Settings:
    """Options of one training run. Raises DistillError ERR_BAD_OPTION for values out of range."""

    # what the student is
    kind: str = _option("student", "onebit", "onebit, chain:BITS, bitnet, dense, rtn:BITS or qat:BITS")
    layernorm: bool = _option("student", False, "the paper's LayerNorm behind every linear")
    sign_gradient: str = _option(
        "student", "official", "what stands for sign's derivative", choices=tuple(SIGN_GRADIENTS)
    )
    zero_is_zero: bool = _option("student", False, "torch.sign(0) = 0 while training, as the official code")
    fold_scales: bool = _option("student", True, "multiply the signs by g and h, not the activations before and behind "
                                "them: the same but for rounding, and for fp16's range")  # fmt: skip
    column: bool = _option("student", False, "a column of floats beside the signs of each linear: 1.046 -> 1.092 bits a "
                           "weight of a model of 135M")  # fmt: skip
    start: str = _option("student", "svd", f"where g and h come from: {', '.join(METHODS)}, or a .obt file that "
                         "`onebit convert --type onebit` wrote")  # fmt: skip
    split: float = _option("student", 0.5, "svd: share of the singular value that h gets", least=0, most=1)
    latent: str = _option(
        "student", "magnitude", "latent weights: 0.01 sign(W), or in proportion to W", choices=LATENTS
    )
    latent_mean: float = _option("student", 0.4, "mean |latent| at the start, unless official", above=0)
    train_embedding: bool = _option("student", True, "train embedding and head")
    train_norms: bool = _option("student", True, "train the RMSNorm weights")

    # data
    block: int = _option("data", 512, "tokens a training sequence", least=2, most=1 << 20)
    packing: str = _option("data", "reshuffle", "documents cut anew every epoch, or once (as the official code)",
                           choices=("reshuffle", "fixed"))  # fmt: skip
    validation: float = _option("data", 0.02, "share of the documents kept for validation", least=0, most=0.5)
    validation_blocks: int = _option("data", 64, "at most this many blocks are validated", least=1)
    seed: int = _option("data", 0, "order of the data, and everything else that is drawn", least=0, most=2**31)

    # losses
    logits_loss: str = _option("loss", "token", "KL per token, or the official sum over a sequence's tokens",
                               choices=("token", "batchmean"))  # fmt: skip
    logits_weight: float = _option("loss", 1.0, "weight of the KL loss on logits", least=0)
    temperature: float = _option("loss", 1.0, "temperature of both distributions in the KL", above=0)
    hidden_weight: float = _option("loss", 0.0, "alpha, weight of the loss on hidden states", least=0)
    hidden_last: bool = _option("loss", False, "the state behind the final norm counts too")
    attention_weight: float = _option("loss", 0.0, "weight of the loss on attention probabilities", least=0)
    lm_weight: float = _option("loss", 0.0, "weight of the cross-entropy with the text itself", least=0)
    top_k: int = _option("loss", 0, "keep this many teacher logits a token on disk and skip the teacher afterwards",
                         least=0, most=4096)  # fmt: skip

    # optimiser
    optimiser: str = _option("optimiser", "adamw", "adamw, or muon for the matrices", choices=("adamw", "muon"))
    lr: float = _option("optimiser", 2e-3, "peak learning rate", above=0, most=10)
    latent_lr: float = _option("optimiser", 0.0, "AdamW's peak learning rate of the layers' matrices; 0: as --lr",
                               least=0, most=10)  # fmt: skip
    muon_lr: float = _option("optimiser", 0.02, "peak learning rate of Muon's matrices", above=0, most=10)
    beta1: float = _option("optimiser", 0.9, "Adam's beta1", least=0, most=0.99999)
    beta2: float = _option("optimiser", 0.98, "Adam's beta2", least=0, most=0.99999)
    eps: float = _option("optimiser", 1e-8, "Adam's epsilon", above=0)
    weight_decay: float = _option("optimiser", 0.0, "decoupled weight decay", least=0)
    decay_vectors: bool = _option("optimiser", False, "weight decay on the scales too, as Hugging Face's trainer")
    clip: float = _option("optimiser", 1.0, "clip the gradient's norm; 0: never", least=0)
    ema: float = _option("optimiser", 0.0, "also keep a moving average of the weights with this decay, and export it",
                         least=0, most=0.99999)  # fmt: skip

    # schedule
    steps: int = _option("schedule", 0, "optimiser steps; 0: as --epochs says", least=0)
    epochs: float = _option("schedule", 1.0, "passes over the data, where steps is 0", above=0)
    schedule: str = _option("schedule", "cosine", "learning rate after warm-up",
                            choices=("cosine", "linear", "constant", "trapezoid"))  # fmt: skip
    warmup: float = _option("schedule", 0.03, "warm-up: steps if 1 or more, else share of all steps", least=0)
    decay: float = _option("schedule", 0.4, "share of the steps in which a trapezoid comes down", above=0, most=1)
    min_lr: float = _option("schedule", 0.0, "last learning rate as a share of the peak", least=0, most=1)
    batch: int = _option("schedule", 16, "sequences an optimiser step, over all processes", least=1)
    micro_batch: int = _option("schedule", 16, "sequences at once in one process", least=1)

    # machine
    precision: str = _option("machine", "bf16", "of the multiplications", choices=("f32", "bf16", "fp16"))
    fp16_scale: float = _option("machine", 64.0, "fp16: first loss scale", least=1)
    fp16_window: int = _option("machine", 100, "fp16: steps without overflow before the scale doubles", least=1)
    device: str = _option("machine", "auto", "auto, cpu, cuda")
    threads: int = _option("machine", 0, "CPU threads of torch; 0: as torch chooses", least=0, most=1024)
    sharding: str = _option("machine", "fsdp", "several processes split the model, or each has all of it",
                            choices=("fsdp", "replicate"))  # fmt: skip
    compile: bool = _option("machine", False, "torch.compile the student")
    gradient_checkpointing: bool = _option("machine", False, "recompute activations in the backward pass")

    # reports and checkpoints
    log_every: int = _option("run", 10, "steps between two lines of metrics", least=1)
    validate_every: int = _option("run", 200, "steps between two validations; 0: only at the end", least=0)
    checkpoint_every: int = _option("run", 200, "steps between two checkpoints", least=1)
    keep: int = _option("run", 2, "checkpoints kept", least=1)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            _check(item.name, getattr(self, item.name), hints[item.name], item.metadata)
        kind = StudentKind.parse(self.kind)
        if self.column and kind.name not in ("onebit", "chain"):
            _bad("column", f"belongs to signs, onebit or chain:BITS, not to {self.kind}")
        if self.column and self.start_file:
            _bad("column", f"a file has no start for it, found start {self.start!r}")
        if self.start not in METHODS and not self.start_file:
            _bad("start", f"must be one of {', '.join(METHODS)}, or end with .obt, found {self.start!r}")
        if self.batch % self.micro_batch != 0:
            _bad("batch", f"{self.batch} is not a multiple of micro_batch {self.micro_batch}")
        if self.top_k > 0 and (self.packing != "fixed" or self.hidden_weight > 0 or self.attention_weight > 0):
            _bad("top_k", "needs packing = fixed and no loss on hidden states or attention: only logits are kept")
        if self.top_k > 0 and self.temperature != 1:
            _bad("top_k", f"keeps the teacher's logits at temperature 1, found temperature {self.temperature:g}")

    @property
    def start_file(self) -> str | None:
        """The file that the start is read from, if it is."""
        return self.start if self.start.endswith(".obt") else None

    def to_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


def _bad(name: str, problem: str) -> typing.NoReturn:
    hint = "`python -m onebit_distill train --help` lists the options."
    raise DistillError("ERR_BAD_OPTION", f"{name}: {problem}", hint)


def _check(name: str, value: Any, kind: type, checks: Mapping[str, Any]) -> None:
    if kind is float and type(value) is int:
        return _check(name, float(value), kind, checks)
    if type(value) is not kind:
        _bad(name, f"must be of type {kind.__name__}, found {value!r}")
    if checks["choices"] is not None and value not in checks["choices"]:
        _bad(name, f"must be one of {', '.join(checks['choices'])}, found {value!r}")
    if kind in (int, float):
        if not math.isfinite(value):
            _bad(name, f"must be a finite number, found {value!r}")
        for bound, fails, words in (
            ("least", lambda limit: value < limit, "at least"),
            ("most", lambda limit: value > limit, "at most"),
            ("above", lambda limit: value <= limit, "above"),
        ):
            if checks[bound] is not None and fails(checks[bound]):
                _bad(name, f"must be {words} {checks[bound]:g}, found {value!r}")


def option_types() -> dict[str, tuple[type, Mapping[str, Any]]]:
    """Name of every option with its type and metadata, in order."""
    hints = typing.get_type_hints(Settings)
    return {item.name: (hints[item.name], item.metadata) for item in fields(Settings)}


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as it is. Raises DistillError ERR_CONFIG_FILE."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as cause:
        raise DistillError("ERR_CONFIG_FILE", f"{path}: {cause.strerror or cause}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise DistillError("ERR_CONFIG_FILE", f"{path} is not TOML: {cause}") from cause


def settings_from_tables(
    tables: Mapping[str, Any], source: str, defaults: Mapping[str, Any] | None = None, **overrides: Any
) -> Settings:
    """Settings of a file's tables; `overrides` (None: not given) win, and `defaults` are for what neither says.

    Raises DistillError ERR_CONFIG_FILE for tables and keys that do not exist, ERR_BAD_OPTION for values.
    """
    known = option_types()
    values: dict[str, Any] = dict(defaults or {})
    for table, entries in tables.items():
        if not isinstance(entries, dict):
            raise DistillError("ERR_CONFIG_FILE", f"{source}: {table!r} stands outside of a [table]")
        for name, value in entries.items():
            if name not in known or known[name][1]["table"] != table:
                place = f"; it belongs into [{known[name][1]['table']}]" if name in known else ""
                raise DistillError("ERR_CONFIG_FILE", f"{source}: [{table}] has no option {name!r}{place}")
            values[name] = value
    values.update({name: value for name, value in overrides.items() if value is not None})
    return Settings(**{name: _widened(value, known[name][0]) for name, value in values.items()})


def _widened(value: Any, kind: type) -> Any:
    return float(value) if kind is float and type(value) is int else value


def read_settings(path: str | Path | None, **overrides: Any) -> Settings:
    """Settings of a configuration file (or the defaults) with overrides."""
    return settings_from_tables(read_toml(path) if path else {}, str(path), **overrides)


def with_options(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, **changes)
