"""The last stage of `stories`: export, the one evaluation on the validation text, and the model card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...data.blocks import validation_blocks
from ...data.documents import TokenStore
from ...data.generate import GenerateOptions, draw, uniform
from ...data.teacher import Teacher, load_teacher
from ...export.run import export_run
from ...export.student import ExportReport, round_as_exported
from ...model.attention import KVCache
from ...model.llama import Llama
from ...system.atomic_file import writing_atomically
from ...system.processes import World
from ...training.metrics import read_metrics
from ...training.run_folder import load_student, read_run
from ...training.trainer import mean_loss

#: read once, here, and never for any decision
VALIDATION = "tinystories-val-0.8MB.txt"

#: what was asked of the CPU route: bits per byte of the teacher, and the student's share above it
TEACHER_BAR, STUDENT_BAR = 0.93, 1.01

#: how the file stores scales (and columns) of its signs
_SCALES = "f16"

_PROMPTS = ("Once upon a time", "Lily and Tom went to the park.", '"Can you help me?" asked the little bird.')
_SAMPLE_TOKENS = 300


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


def _held_back_perplexity(model: Llama, out: Path) -> float:
    store = TokenStore(out / "held-back")
    blocks = validation_blocks(store, np.arange(len(store)), model.config.context_length, 1 << 30)
    return math.exp(mean_loss(model, blocks, World(0, 1, torch.device("cpu")), "f32", 8))


def evaluate(out: Path, texts: Path, teacher: Teacher, student: Llama) -> dict[str, Any]:
    """Scores of teacher and student, kept in `scores.json`: the validation text is read once for a pair of models."""
    path = out / "scores.json"
    if path.exists():
        return json.loads(path.read_text())
    scores: dict[str, Any] = {}
    models = {"teacher": teacher.model, "student": student}
    for name, model in models.items():
        scores[f"{name}_held_back_perplexity"] = _held_back_perplexity(model, out)
    if (texts / VALIDATION).exists():
        text = (texts / VALIDATION).read_text(encoding="utf-8")
        ids = teacher.encode(text, special=True, bos=True)
        for name, model in models.items():
            block = model.config.context_length
            scores[f"{name}_bits_per_byte"] = bits_per_byte(model, ids, len(text.encode()), block)
        scores["ratio"] = scores["student_bits_per_byte"] / scores["teacher_bits_per_byte"]
    with writing_atomically(path) as file:
        file.write(json.dumps(scores, indent=1).encode())
    return scores


@torch.no_grad()
def tell(model: Llama, teacher: Teacher, prompt: str, number: int) -> str:
    """A story that begins with `prompt`, drawn at temperature 0.7 from the 40 likeliest."""
    ids = teacher.encode(prompt, bos=True)
    options = GenerateOptions(temperature=0.7, top_k=40)
    cache = KVCache(model.config, 1, min(model.config.context_length, len(ids) + _SAMPLE_TOKENS))
    logits = model(torch.tensor([ids]), cache=cache, logits="last").logits[:, -1]
    while len(ids) < cache.capacity:
        chance = uniform(options.seed, torch.tensor([number]), torch.tensor([len(ids)]))
        token = int(draw(logits, chance, options.temperature, options.top_k))
        if token in teacher.eos_ids:
            break
        ids.append(token)
        if len(ids) < cache.capacity:
            logits = model(torch.tensor([[token]]), cache=cache, logits="last").logits[:, -1]
    return teacher.tokenizer.decode(ids, skip_special_tokens=True)


def _verdict(scores: dict[str, Any]) -> str:
    if "ratio" not in scores:
        return f"The validation text `{VALIDATION}` was not there: not evaluated."
    teacher, ratio = scores["teacher_bits_per_byte"], scores["ratio"]
    first = "met" if teacher <= TEACHER_BAR else "**not met**"
    second = "met" if ratio <= STUDENT_BAR else "**not met**"
    return (
        f"Asked for: teacher at most {TEACHER_BAR} bits per byte ({first}), "
        f"student at most {STUDENT_BAR} times its teacher ({second}: {ratio:.3f})."
    )


def _training_tokens(run: Path) -> int:
    entries = [entry for entry in read_metrics(run / "metrics.jsonl") if "tokens" in entry]
    return entries[-1]["tokens"] if entries else 0


def _score_rows(scores: dict[str, Any]) -> str:
    rows = ["| | teacher (float) | student (1 bit) |", "|---|---:|---:|"]
    for key, words in (
        ("bits_per_byte", f"bits per byte, `{VALIDATION}`"),
        ("held_back_perplexity", "perplexity, held-back stories"),
    ):
        if f"teacher_{key}" in scores:
            rows.append(f"| {words} | {scores[f'teacher_{key}']:.4f} | {scores[f'student_{key}']:.4f} |")
    return "\n".join(rows)


def card(
    out: Path, teacher: Teacher, student: Llama, report: ExportReport, scores: dict[str, Any], command: str
) -> str:
    """The model card, Markdown."""
    record, config = read_run(out / "student"), student.config
    samples = "\n\n".join(f"> {tell(student, teacher, p, i)}".replace("\n", "\n> ") for i, p in enumerate(_PROMPTS))
    column = " and a column of floats" if record.settings.column else ""
    generated = sum(1 for path in (out / "generated").glob("*.jsonl") for _ in open(path, encoding="utf-8"))
    return f"""# {Path(report.path).name}

A OneBit language model that tells short children's stories in English. Every linear weight of its {config.n_layers}
layers is a sign with two scale vectors beside each matrix (Xu et al., arXiv 2402.11295){column};
embedding and head are int8.

- {report.file_bytes:,} bytes, {report.bits_per_linear_weight:.3f} bits per linear weight
- {config.n_layers} layers of {config.dim}, feed-forward {config.hidden_dim}, {config.n_heads} heads, {config.vocab_size} tokens,
  context {config.context_length}
- made on the CPU route, by this command (distill/README.md):

```sh
{command}
```

## How it was made

1. A byte-level BPE and a float teacher were trained from nothing on TinyStories (CDLA-Sharing-1.0; three published
   excerpts, 5.5 MB; the lower-cased one got its capitals back by context):
   {_training_tokens(out / "teacher-run"):,} tokens.
2. The teacher wrote {generated:,} stories.
3. The student began as the teacher's signs with scales by SVID ({record.settings.start}; latent weights:
   {record.settings.latent}; LayerNorm: {"yes" if record.settings.layernorm else "no"}) and learned the teacher's distribution
   on these stories and on the texts of 1: {_training_tokens(out / "student"):,} tokens.

Teacher SHA-256: `{teacher.sha256}`.

## Scores

{_score_rows(scores)}

Blocks of {config.context_length} tokens, each from nothing, every token counted. The validation text was read once,
after all training; the student was scored with everything rounded as in the file. {_verdict(scores)}

## What it writes

Temperature 0.7, top 40; the first words are given.

{samples}

It knows nothing but such stories: no facts, no instructions, no chat.

Licence: MIT, as the project's. The texts it learned from: TinyStories (Eldan and Li, arXiv 2305.07759), CDLA-Sharing-1.0.
"""


def finish(out: Path, texts: Path, output: Path, command: str) -> None:
    """Exports `output` and writes the card beside it as `NAME.md`."""
    teacher = load_teacher(out / "teacher")
    student, _, _ = load_student(out / "student")
    student = round_as_exported(student, scales=_SCALES)
    scores = evaluate(out, texts, teacher, student)
    report = export_run(out / "student", output, scales=_SCALES, more={"scores": scores, "command": command})
    with writing_atomically(output.with_suffix(".md")) as file:
        file.write(card(out, teacher, student, report, scores, command).encode())
