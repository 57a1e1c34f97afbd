"""The default model's route without a GPU, from texts to `.obt`, as one command that can be stopped at any time.

Stages: `prepare` (texts, tokenizer), `teacher` (a float model from nothing), `generate` (texts by the teacher),
`student` (OneBit by knowledge transfer), `finish` (export, the one evaluation, the model card). What a stage has
finished is not done again; a stage that was interrupted goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.blocks import Blocks, validation_blocks
from ...data.documents import TokenStore, is_finished, tokenise
from ...data.generate import generate, options_from_table
from ...data.teacher import load_teacher
from ...data.teacher_text import TeacherText
from ...errors import DistillError
from ...formats.hf_folder import save_hf_folder
from ...model.config import LlamaConfig
from ...model.llama import Llama
from ...system.atomic_file import writing_atomically
from ...system.processes import world
from ...training.losses import LanguageModelling
from ...training.settings import Settings, read_toml, settings_from_tables
from ...training.trainer import DTYPES, Trained, Trainer
from ...training.transfer import TransferJob, draw_plot, run_transfer
from .card import finish
from .texts import read_stories, train_tokenizer

STAGES = ("prepare", "teacher", "generate", "student", "finish")
#: stages that several processes share
_PARALLEL = ("teacher", "generate", "student")


@dataclass(frozen=True)
class StoriesPlan:
    """The `[stories]` table: the size of the model."""

    vocabulary: int = 2048
    dim: int = 256
    hidden_dim: int = 704
    layers: int = 6
    heads: int = 4
    context: int = 512
    processes: int = 2

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            dim=self.dim,
            hidden_dim=self.hidden_dim,
            n_layers=self.layers,
            n_heads=self.heads,
            n_kv_heads=self.heads,
            head_dim=self.dim // self.heads,
            context_length=self.context,
            tied_head=True,
        )


@dataclass(frozen=True)
class StoriesFile:
    """A configuration file of this command: `[stories]`, `[generate]`, `[teacher.*]`, `[student.*]`."""

    plan: StoriesPlan
    generate: dict[str, Any]
    teacher: Settings
    student: Settings


def read_stories_file(path: Path) -> StoriesFile:
    """Raises DistillError ERR_CONFIG_FILE, ERR_BAD_OPTION."""
    tables = read_toml(path)
    unknown = sorted(set(tables) - {"stories", "generate", "teacher", "student"})
    if unknown:
        raise DistillError("ERR_CONFIG_FILE", f"{path}: there is no table {unknown[0]!r}")
    plan = tables.get("stories", {})
    known = {item.name for item in fields(StoriesPlan)}
    for name, value in plan.items():
        if name not in known or type(value) is not int or value < 1:
            raise DistillError("ERR_CONFIG_FILE", f"{path}: [stories] {name} = {value!r} is not an option of its kind")
    return StoriesFile(
        StoriesPlan(**plan),
        tables.get("generate", {}),
        settings_from_tables(tables.get("teacher", {}), f"{path} [teacher]"),
        settings_from_tables(tables.get("student", {}), f"{path} [student]"),
    )


def prepare(out: Path, texts: Path, plan: StoriesPlan) -> None:
    """Texts to `texts/*.jsonl`, `tokenizer/`, and as ids to `training/` and `held-back/`."""
    stories = read_stories(texts)
    for name, documents in (("training", stories.training), ("held-back", stories.held_back)):
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
        _write(out / "texts" / f"{name}.jsonl", lines.encode())
    if is_finished(out / "training"):
        return  # a tokenizer that a teacher may have been trained with already is not made anew
    parts = train_tokenizer(stories.training, plan.vocabulary)
    for name, value in zip(("tokenizer.json", "tokenizer_config.json"), parts, strict=True):
        _write(out / "tokenizer" / name, json.dumps(value, ensure_ascii=False).encode())
    encoder = _Encoder(read_tokenizer(out))
    tokenise(stories.held_back, encoder, out / "held-back")
    tokenise(stories.training, encoder, out / "training")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_atomically(path) as file:
        file.write(data)


class _Encoder:
    """A tokenizer that no model goes with yet, as `tokenise` wants it."""

    def __init__(self, text: TeacherText) -> None:
        self.encode = text.encode
        self.bos_id, self.eos_id = text.token_id("bos_token"), text.token_id("eos_token")


def read_tokenizer(out: Path) -> TeacherText:
    folder = out / "tokenizer"
    tokenizer, config = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    return TeacherText(tokenizer, config)


def held_back(out: Path, settings: Settings) -> np.ndarray:
    store = TokenStore(out / "held-back")
    return validation_blocks(store, np.arange(len(store)), settings.block, settings.validation_blocks)


def train_teacher(out: Path, plan: StoriesPlan, settings: Settings) -> Trained:
    """The float teacher, from nothing; `teacher/` afterwards holds it as a Hugging Face folder."""
    with world(settings.device) as here:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        store = TokenStore(out / "training")
        blocks = Blocks(store, np.arange(len(store)), settings.block, settings.packing, settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        model = Llama(plan.config()).init_weights(generator=generator).to(here.device)
        run = out / "teacher-run"
        run.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(model, LanguageModelling(), blocks, held_back(out, settings), settings, run, here, "teacher")
        result = trainer.train()
        if not result.stopped and here.is_first:
            text = read_tokenizer(out)
            with trainer.averaged():
                save_hf_folder(model, out / "teacher", text.tokenizer_json, text.config)
            draw_plot(run, "teacher")
        return result


def generate_stories(out: Path, table: dict[str, Any]) -> None:
    """Stories by the teacher, to `generated/`."""
    table = dict(table)
    precision = table.pop("precision", "f32")
    if precision not in DTYPES:
        raise DistillError("ERR_CONFIG_FILE", f"[generate] precision must be one of {', '.join(DTYPES)}")
    with world("cpu") as here:
        teacher = load_teacher(out / "teacher", DTYPES[precision], str(here.device))
        generate(teacher, options_from_table(table, "stories"), out / "generated", here)


def train_student(out: Path, settings: Settings, command: str) -> Trained:
    """The OneBit student, on the teacher's stories and on those the teacher learned from."""
    data = [out / "generated", out / "texts" / "training.jsonl"]
    held_back = [out / "texts" / "held-back.jsonl"]
    job = TransferJob(str(out / "teacher"), data, out / "student", held_back, command, "student")
    return run_transfer(job, settings)


def _run_stage(stage: str, texts: Path, out: Path, file: StoriesFile, output: Path, command: str) -> None:
    if stage == "prepare":
        prepare(out, texts, file.plan)
    elif stage == "generate":
        generate_stories(out, file.generate)
    elif stage == "finish":
        finish(out, texts, output, command)
    else:
        if stage == "teacher":
            result = train_teacher(out, file.plan, file.teacher)
        else:
            result = train_student(out, file.student, command)
        if result.stopped:
            message = f"stage {stage} was stopped at step {result.steps}; a checkpoint is there"
            raise DistillError("ERR_INTERRUPTED", message, "The same command goes on from it.")


def _launch(stage: str, processes: int, arguments: list[str]) -> None:
    """Runs a stage in several processes, each with its share of the cores."""
    package = str(Path(__file__).resolve().parents[3])  # the folder that onebit_distill lies in
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    argv = [sys.executable, *torchrun, "-m", "onebit_distill", "stories", *arguments, "--stage", stage]
    child = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    before = {
        number: signal.signal(number, lambda received, _: child.send_signal(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status != 0:
        message = f"stage {stage} ended with exit status {status} (see above)"
        raise DistillError("ERR_STAGE", message, "The same command goes on where it was.")


def run_stories(texts: Path, out: Path, config: Path, output: Path | None, stage: str | None, command: str) -> None:
    """All stages that are not done yet, or only `stage`. Raises DistillError."""
    file = read_stories_file(config)
    options_from_table({k: v for k, v in file.generate.items() if k != "precision"}, str(config))
    output = output or out / "stories.obt"
    out.mkdir(parents=True, exist_ok=True)
    if stage is not None:
        _run_stage(stage, texts, out, file, output, command)
        return
    arguments = ["--texts", str(texts), "--out", str(out), "--config", str(config), "--output", str(output)]
    for name in STAGES:
        marker = out / f"{name}.done"
        if marker.exists():
            continue
        print(f"stories: stage {name}", file=sys.stderr, flush=True)
        if name in _PARALLEL and file.plan.processes > 1:
            _launch(name, file.plan.processes, arguments)
        else:
            _run_stage(name, texts, out, file, output, command)
        _write(marker, b"")
