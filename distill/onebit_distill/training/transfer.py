"""`train`: a student from a teacher and texts, in a folder that the same command goes on in."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.blocks import Blocks, split_documents, validation_blocks
from ..data.documents import TokenStore, documents, is_finished, tokenise
from ..data.teacher import Teacher, load_teacher
from ..data.topk import TopKCache
from ..errors import DistillError
from ..formats.obt_start import read_start
from ..model.llama import Llama
from ..model.starts import METHODS, StartOptions, student_of
from ..system.atomic_file import file_error, writing_atomically
from ..system.memory import keep_memory
from ..system.processes import World, multiplied_in, world
from .block_fit import BlockFit, harden
from .checkpoint import checkpoint_steps
from .losses import Transfer
from .metrics import plot
from .run_folder import RunRecord, load_student, open_run, read_run, save_text, sign_options
from .settings import Settings
from .time_budget import TimeBudget
from .trainer import DTYPES, Trained, Trainer, mean_loss


@dataclass(frozen=True)
class TransferJob:
    """What `train` and `reconstruct` are told besides settings."""

    teacher: str
    data: Sequence[str | Path]
    run: Path
    #: texts to validate on; none: a fixed part of the data
    validation: Sequence[str | Path] = ()
    command: str = ""
    label: str = "train"
    #: of a llama2.c teacher
    tokenizer: Path | None = None
    #: options besides settings that a run goes on with only as they were
    more: dict[str, Any] | None = None
    #: where tokenised texts lie, for runs that share them; None: in the run's folder
    tokens: Path | None = None
    #: another run's folder, whose student this one goes on with; None: a start from the teacher
    source: Path | None = None


@dataclass
class Prepared:
    """Teacher, texts and a student with its start, before the first step."""

    teacher: Teacher
    student: Llama
    blocks: Blocks
    validation: np.ndarray


def start_options(settings: Settings) -> StartOptions:
    """Raises DistillError ERR_START_FIT and others of `read_start`."""
    given = None
    if settings.start_file is not None:
        start = read_start(settings.start_file)
        if start.layernorm != settings.layernorm:
            flag = "--layernorm" if start.layernorm else "--no-layernorm"
            message = f"{settings.start} was made with {flag}, the student is not"
            raise DistillError("ERR_START_FIT", message, f"Train with {flag}, or convert the teacher again.")
        given = start.scales
    return StartOptions(
        method=METHODS[0] if given is not None else settings.start,
        split=settings.split,
        latent=settings.latent,
        latent_mean=settings.latent_mean,
        seed=settings.seed,
        given=given,
    )


def choose_trained(student: Llama, settings: Settings) -> None:
    """Which parameters learn: the linears always; embeddings and head, and norms with what else a delta rule has, as the
    settings say."""
    for name, parameter in student.named_parameters():
        if name.endswith(("embed_tokens.weight", "embed_positions.weight", "lm_head.weight")):
            parameter.requires_grad_(settings.train_embedding)
        elif name.split(".")[-2].endswith(("norm", "conv1d")) or name.endswith((".A_log", ".dt_bias")):
            parameter.requires_grad_(settings.train_norms)


def _tokens(paths: Sequence[str | Path], teacher: Teacher, folder: Path, here: World) -> TokenStore:
    """Tokenises once, in the first process; the others wait for the folder. A later call uses what is there if the
    files are the same (by name, size and time)."""
    listed = []
    for path in map(Path, paths):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.suffix not in (".txt", ".jsonl") and path.is_dir():
                continue
            try:
                status = file.stat()
            except OSError as cause:
                raise file_error(cause, file, "reading") from cause
            listed.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    # the tokenizer may lie beside the weights, and change without them
    tokenizer = "" if teacher.text is None else hashlib.sha256(teacher.text.blob()).hexdigest()
    described = {"files": listed, "teacher_sha256": teacher.sha256, "tokenizer_sha256": tokenizer}
    marker = folder / "source.json"
    same = is_finished(folder) and _read_source(marker) == described
    here.wait()
    problem = None
    if here.is_first and not same:
        try:
            tokenise(documents(paths), teacher, folder)
            with writing_atomically(marker) as file:
                file.write(json.dumps(described).encode())
        except DistillError as error:  # the others wait: tell them
            problem = error
    if here.any(problem is not None):
        raise problem or DistillError("ERR_DATA", "the first process could not read the data")
    return TokenStore(folder)


def _read_source(marker: Path) -> dict | None:
    """What the tokens in a folder were made of; None when that is not known, so that they are made again."""
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def teacher_dtype(settings: Settings, device: torch.device) -> torch.dtype:
    """The teacher only runs forward: it is kept in the precision that it is multiplied in."""
    return DTYPES[multiplied_in(settings.precision, device)]


def prepare_texts(
    job: TransferJob, teacher: Teacher, settings: Settings, here: World
) -> tuple[Blocks, np.ndarray, str]:
    """Training blocks, validation blocks and the data's digest."""
    if settings.block > teacher.config.context_length:
        message = f"block {settings.block} is longer than the teacher's context of {teacher.config.context_length}"
        raise DistillError("ERR_CONTEXT_LENGTH", message, "Choose a smaller --block.")
    if settings.top_k > teacher.config.vocab_size:
        message = f"top_k: {settings.top_k} are more than the teacher's {teacher.config.vocab_size} tokens"
        raise DistillError("ERR_BAD_OPTION", message)
    folder = job.tokens or job.run
    store = _tokens(job.data, teacher, folder / "tokens", here)
    chosen, kept = split_documents(len(store), 0.0 if job.validation else settings.validation)
    blocks = Blocks(store, chosen, settings.block, settings.packing, settings.seed)
    other = store
    if job.validation:
        other = _tokens(job.validation, teacher, folder / "validation-tokens", here)
        kept = np.arange(len(other))
    validated = validation_blocks(other, kept, settings.block, settings.validation_blocks)
    if job.validation and len(validated) == 0:
        message = f"The validation texts have {len(other.tokens)} tokens, less than one block of {settings.block}"
        raise DistillError("ERR_DATA", message, "Give more validation text or a smaller block.")
    return blocks, validated, store.digest()


#: settings that say what a student is: those of a run that another goes on with
OF_A_STUDENT = ("kind", "layernorm", "column")


def settings_of_student(run: Path, source: Path) -> dict[str, Any]:
    """What the student of a run that begins with that of another is, whatever has become of the other by now.

    Raises DistillError ERR_NO_RUN."""
    settings = read_run(run if (run / "run.json").exists() else source).settings
    return {name: getattr(settings, name) for name in OF_A_STUDENT}


def _student(job: TransferJob, settings: Settings, teacher: Teacher, started: bool) -> Llama:
    if job.source is not None and not checkpoint_steps(job.run):
        return _student_of_run(job.source, settings, teacher)
    # a longer context than the teacher's was never learned; a shorter one costs nothing to keep
    start = start_options(settings) if started and job.source is None else None
    return student_of(teacher.model, settings.kind, start, sign_options(settings))


def _student_of_run(run: Path, settings: Settings, teacher: Teacher) -> Llama:
    """The student that another run ended with, its latents so far from 0 that the first steps turn none.

    Raises DistillError ERR_START_FIT where the settings or the teacher want another one, and those of `load_student`.
    """
    if settings.start_file is not None:
        message = f"{settings.start} and the student of {run}: there is one start"
        raise DistillError("ERR_BAD_OPTION", message, "Give --start or --from.")
    student, record, step = load_student(run)
    now, found = settings.to_dict(), record.settings.to_dict()
    for name in OF_A_STUDENT:
        if now[name] != found[name]:
            message = f"the student in {run} was made with {name} = {found[name]!r}, now it is {now[name]!r}"
            raise DistillError("ERR_START_FIT", message, "Give the options that it was made with.")
    if student.config != teacher.config:
        message = f"the student in {run} has another shape than the teacher {teacher.source}"
        raise DistillError("ERR_START_FIT", message, "Give the teacher that it was made from.")
    harden(student, BlockFit.margin)
    print(f"train: goes on with the student of {run}, step {step}", file=sys.stderr, flush=True)
    return student.train()


def prepare(job: TransferJob, settings: Settings, here: World, *, started: bool = True) -> Prepared:
    """Raises DistillError: those of the teacher, the data, and ERR_RUN_DIFFERS.

    started: whether the student's linears begin as the settings say, or are left for whoever calls this."""
    teacher = load_teacher(job.teacher, teacher_dtype(settings, here.device), str(here.device), job.tokenizer)
    blocks, validation, digest = prepare_texts(job, teacher, settings, here)
    student = _student(job, settings, teacher, started).to(here.device)
    choose_trained(student, settings)
    source = {
        "source": Path(teacher.source).name,
        "format": teacher.format,
        "sha256": teacher.sha256,
        "files": teacher.files,
    }
    # which of the texts are trained on, and in which order
    held_out = 0.0 if job.validation else settings.validation
    record = RunRecord(settings, student.config, source, digest, job.command, job.more, held_out)
    open_run(job.run, record, here.is_first)
    here.wait()
    if here.is_first and teacher.text is not None:
        save_text(job.run, teacher.text)
    return Prepared(teacher, student, blocks, validation)


def fit(
    job: TransferJob,
    settings: Settings,
    made: Prepared,
    here: World,
    budget: TimeBudget | None = None,
    step_seconds: float | None = None,
) -> Trained:
    """End-to-end training of a prepared student; then a plot of the metrics.

    budget: of the whole run, see `Trainer`; step_seconds: how long a step is going to take, where that was measured."""
    objective = Transfer(made.teacher.model, settings)
    if settings.top_k > 0:
        objective.cache = TopKCache(job.run / "top-k", made.blocks, settings.top_k)
    trainer = Trainer(made.student, objective, made.blocks, made.validation, settings, job.run, here, job.label, budget)
    if step_seconds is not None:
        trainer.expect(step_seconds)
    if len(made.validation) and here.is_first:
        loss = mean_loss(made.teacher.model, made.validation, here, settings.precision, trainer.micro)
        trainer.line.note(f"the teacher's validation perplexity is {math.exp(loss):.4f}")
        with writing_atomically(job.run / "teacher.json") as file:
            file.write(json.dumps({"validation_loss": loss, "validation_perplexity": math.exp(loss)}).encode())
    here.wait()
    result = trainer.train()
    if here.is_first and not result.stopped:
        draw_plot(job.run, job.label)
    return result


def draw_plot(run: Path, title: str) -> None:
    try:
        plot(run / "metrics.jsonl", run / "metrics.svg", title)
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)


@contextmanager
def machine(settings: Settings):
    """The processes of a run, with threads, memory and seed as the settings say."""
    with world(settings.device) as here:
        if here.device.type == "cpu":
            keep_memory()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        yield here


def run_transfer(job: TransferJob, settings: Settings, minutes: float = 0.0) -> Trained:
    """The whole of `train`. minutes: for all of it, over all calls; 0: as long as `settings.steps` or epochs take."""
    budget = TimeBudget(job.run, minutes) if minutes else None
    with machine(settings) as here:
        if budget is not None and here.size > 1:
            # each process would count its own steps, and wait for ever for one that counts fewer
            raise DistillError("ERR_BAD_OPTION", "--minutes needs one process", "Give --steps under torchrun.")
        return fit(job, settings, prepare(job, settings, here), here, budget)
