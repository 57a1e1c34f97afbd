"""Training options of the rows that are trained end to end, and in which points they leave their source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...training.reconstruct import defaults
from ...training.settings import Settings, read_settings
from .plan import Plan, Row

#: 500 steps of about 29,700, as configs/baselines.toml has it
_PAPER_WARMUP = 0.0168
#: paper.toml sums the logits loss over the tokens of a block of so many
_PAPER_BLOCK = 2048
#: LLM-QAT's is 2e-5 in some ten thousand steps; here there are a hundred
_LLM_QAT_RATE = 2e-4


@dataclass(frozen=True)
class Recipe:
    settings: Settings
    #: how it differs from what it is named after
    notes: tuple[str, ...] = ()


def shared_settings(plan: Plan, threads: int) -> dict[str, Any]:
    """What this study sets in every row. The number of steps follows the clock."""
    return {
        "block": plan.block,
        "batch": plan.batch,
        "micro_batch": plan.batch,
        "seed": plan.seed,
        "validation": 0.0,
        "precision": "bf16",
        "device": "cpu",
        "threads": threads,
        "validate_every": 0,
        "checkpoint_every": 50,
        "keep": 1,
    }


def _paper(plan: Plan, threads: int, configs: Path, **changes: Any) -> Recipe:
    given = {
        **shared_settings(plan, threads),
        "warmup": _PAPER_WARMUP,
        "logits_weight": 0.01 * _PAPER_BLOCK / plan.block,
        "gradient_checkpointing": False,
        "fold_scales": True,
        **changes,
    }
    notes = (
        f"steps of {plan.batch} sequences of {plan.block} tokens in the place of 128 of {_PAPER_BLOCK}, as many as the "
        "minutes allow",
        "warm-up is the same share of the steps, and the logits loss has the same weight a token",
        "bf16 in the place of fp16; scales are multiplied into the signs, which only changes the speed",
    )
    return Recipe(read_settings(configs / "paper.toml", **given), notes)


def _llm_qat(row: Row, plan: Plan, threads: int) -> Recipe:
    settings = Settings(
        kind=f"qat:{row.bits:g}", lr=_LLM_QAT_RATE, beta2=0.999, warmup=0.0, weight_decay=0.0, **shared_settings(plan, threads)
    )
    notes = ["weights only; the loss is the teacher's logits", "learning rate 2e-4 in the place of 2e-5: there are few steps"]
    if row.bits == 1:
        notes.append("at 1 bit, which LLM-QAT has not: signs times the mean magnitude of a row")
    return Recipe(settings, tuple(notes))


def recipe_of(row: Row, plan: Plan, threads: int, configs: Path) -> Recipe:
    """Of a row that `train` or `reconstruct` makes. Raises DistillError ERR_CONFIG_FILE without configs/paper.toml."""
    if row.method == "llm-qat":
        return _llm_qat(row, plan, threads)
    if row.method == "onebit-paper":
        return _paper(plan, threads, configs)
    if row.method == "bitnet":
        found = _paper(plan, threads, configs, kind="bitnet", layernorm=False)
        note = "without BitNet's LayerNorm in front of the products, which a .obt file cannot say"
        return Recipe(found.settings, ("recipe of `configs/paper.toml`", *found.notes[:2], "bf16", note))
    kind = f"chain:{row.bits:g}" if row.method == "chain" else "onebit"
    return Recipe(Settings(kind=kind, **defaults(kind, "svd"), **shared_settings(plan, threads)))
