"""The command `export`: a run's last checkpoint as a file that the engine runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..training.metrics import read_metrics
from ..training.run_folder import load_student, load_text
from .student import ExportReport, export_model


def validation_scores(run: Path) -> dict[str, float]:
    """The last validation that a run wrote down, if any."""
    path = run / "metrics.jsonl"
    checks = [e for e in read_metrics(path) if "validation_perplexity" in e] if path.exists() else []
    return {"validation_perplexity": checks[-1]["validation_perplexity"]} if checks else {}


def export_run(
    run: Path, output: Path, embed: str = "q8", dense: str = "f32", scales: str = "f32", more: dict[str, Any] | None = None
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
    return export_model(model, load_text(run), output, embed, described, dense=dense, scales=scales)
