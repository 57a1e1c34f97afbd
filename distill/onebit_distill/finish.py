"""From a trained run to a file that the engine runs, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .export import ExportReport, export_model
from .llama import Llama
from .metrics import read_metrics
from .run_folder import load_student, load_text


def validation_scores(run: Path) -> dict[str, float]:
    """The last validation a run wrote down, and its teacher's."""
    path = run / "metrics.jsonl"
    checks = [e for e in read_metrics(path) if "validation_perplexity" in e] if path.exists() else []
    return {"validation_perplexity": checks[-1]["validation_perplexity"]} if checks else {}


def export_run(
    run: Path, output: Path, embed: str = "q8", dense: str = "f32", more: dict[str, Any] | None = None
) -> ExportReport:
    """The last checkpoint as a `.obt` file with config, tokenizer, template and provenance.

    Raises DistillError ERR_NO_RUN, ERR_NO_CHECKPOINT, ERR_CHECKPOINT and those of `export_model`.
    """
    model, record, step = load_student(run)
    described = {
        "command": record.command,
        "teacher": record.teacher,
        "step": step,
        "settings": asdict(record.settings),
        "data_sha256": record.data_sha256,
        "scores": validation_scores(run),
        **(more or {}),
    }
    return export_model(model, load_text(run), output, embed, described, dense=dense)


@torch.no_grad()
def bits_per_byte(model: Llama, ids: list[int], text_bytes: int, block: int) -> float:
    """Of a whole text: consecutive blocks of `block` tokens, each from nothing, the last one shorter.

    ids begin with BOS. So that no token goes unpaid for, each block begins with the last token of the one before it.
    """
    nats = 0.0
    line = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    for first in range(0, len(line) - 1, block - 1):
        part = line[first : first + block][None]
        logits = model(part).logits[0, :-1].float()
        nats += float(F.cross_entropy(logits, part[0, 1:], reduction="sum"))
    return nats / math.log(2) / text_bytes
