"""`python -m onebit_distill COMMAND …`: arguments in, exit status out (0 done, 1 error, 2 wrong usage)."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import __version__
from .errors import DistillError

_PROGRAM = "onebit_distill"


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Every training option as `--kebab-case`; what is not given is the configuration file's."""
    from .training.settings import option_types

    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; the command line wins")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, (kind, metadata) in option_types().items():
        table = metadata["table"]
        group = groups.setdefault(table, parser.add_argument_group(f"[{table}]"))
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=metadata["help"])
        else:
            group.add_argument(
                flag, type=kind, default=None, choices=metadata["choices"], metavar=kind.__name__.upper(),
                help=metadata["help"].replace("%", "%%"),
            )  # fmt: skip


def _settings(arguments: argparse.Namespace, defaults: Mapping[str, Any] | None = None):
    """What the command line says, then the file, then `defaults`, which come before those of all commands."""
    from .training.settings import option_types, read_toml, settings_from_tables

    given = {name: getattr(arguments, name) for name in option_types()}
    tables = read_toml(arguments.config) if arguments.config else {}
    return settings_from_tables(tables, str(arguments.config), defaults, **given)


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher", required=True, metavar="T", help="Hugging Face folder, GGUF file or llama2.c .bin file"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="of a llama2.c teacher; default: tokenizer.bin beside it"
    )


def _add_generate(commands) -> None:
    from .data.engine import ACTIVATIONS, ENGINES
    from .data.generate import FIRST_TOKENS, GenerateOptions

    parser = commands.add_parser("generate", help="text by the teacher, to train on", allow_abbrev=False)
    _add_teacher(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the texts")
    for name, field in GenerateOptions.__dataclass_fields__.items():
        kind = {"int": int, "float": float, "str": str}[field.type]
        choices = FIRST_TOKENS if name == "first" else None
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=field.default, choices=choices, help=f"default {field.default}")
    parser.add_argument(
        "--texts", nargs="+", type=Path, default=[], metavar="PATH",
        help="with --first texts: .txt, .jsonl, folders of them, to begin from",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("f32", "bf16", "fp16"), default="f32", help="of the teacher; default f32"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda; default auto")
    parser.add_argument("--graph", action="store_true", help="one CUDA graph per token (GPU only)")
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto",
        help="who writes: this project's engine or PyTorch; default auto: the engine where there is no GPU",
    )  # fmt: skip
    parser.add_argument(
        "--activations", choices=ACTIVATIONS, default=ACTIVATIONS[0],
        help=f"of the engine: rounded to 8 bits, or floats (slower); default {ACTIVATIONS[0]}",
    )  # fmt: skip
    parser.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    from .data.generate import GenerateOptions
    from .data.writers import write_texts
    from .system.processes import world
    from .training.trainer import DTYPES

    options = GenerateOptions(**{name: getattr(arguments, name) for name in GenerateOptions.__dataclass_fields__})
    with world(arguments.device) as here:
        if arguments.graph and here.device.type != "cuda":
            raise DistillError("ERR_BAD_OPTION", "--graph needs a CUDA device")
        write_texts(
            arguments.teacher,
            options,
            arguments.out,
            here,
            tokenizer=arguments.tokenizer,
            dtype=DTYPES[arguments.precision],
            graph=arguments.graph,
            engine=arguments.engine,
            activations=arguments.activations,
            texts=arguments.texts,
        )


def _add_training(parser: argparse.ArgumentParser) -> None:
    _add_teacher(parser)
    parser.add_argument(
        "--data", required=True, nargs="+", type=Path, metavar="PATH", help=".txt, .jsonl, folders of them"
    )
    parser.add_argument(
        "--validation-data", nargs="+", type=Path, default=[], metavar="PATH", help="texts to validate on"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="RUN", help="the run's folder; it goes on if it exists"
    )
    _add_settings(parser)


def _job(arguments: argparse.Namespace, label: str):
    from .training.transfer import TransferJob

    return TransferJob(
        arguments.teacher,
        arguments.data,
        arguments.out,
        arguments.validation_data,
        arguments.written,
        label,
        arguments.tokenizer,
    )


def _add_train(commands) -> None:
    parser = commands.add_parser("train", help="a 1-bit student by knowledge transfer", allow_abbrev=False)
    _add_training(parser)
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="M",
        help="for all of it, over all calls; default 0: as --steps or --epochs say",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="RUN",
        help="go on with the student that another run ended with: with other texts, longer sequences, other rates",
    )  # fmt: skip
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    from .training.transfer import run_transfer, settings_of_student

    job, defaults = _job(arguments, "train"), None
    if arguments.source is not None:
        job = replace(job, source=arguments.source, more={"from": str(arguments.source)})
        defaults = settings_of_student(arguments.out, arguments.source)
    _stopped(run_transfer(job, _settings(arguments, defaults), arguments.minutes), arguments.out)


def _stopped(result, run: Path) -> None:
    if result.stopped:
        message = f"stopped at step {result.steps}; a checkpoint is in {run}"
        raise DistillError("ERR_INTERRUPTED", message, "The same command goes on from there.")


def _add_reconstruct(commands) -> None:
    from .training.block_fit import IMPORTANCES, LOSSES, ORDERS, BlockFit

    parser = commands.add_parser("reconstruct", help="fit block by block, then end to end", allow_abbrev=False)
    _add_training(parser)
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="M",
        help="for all of it, over all calls: blocks take at most six tenths, end to end the rest; "
        "default 0: as --steps or --epochs say",
    )  # fmt: skip
    choices = {"loss": LOSSES, "importance": IMPORTANCES, "order": ORDERS}
    for name, field in BlockFit.__dataclass_fields__.items():
        kind = {"int": int, "float": float, "str": str}[field.type]
        flag = f"--block-{name.replace('_', '-')}"
        parser.add_argument(
            flag, type=kind, default=field.default, choices=choices.get(name), help=f"default {field.default}"
        )
    parser.set_defaults(run=_reconstruct)


def _reconstruct(arguments: argparse.Namespace) -> None:
    from .training.block_fit import BlockFit
    from .training.reconstruct import defaults, run_reconstruction

    options = BlockFit(**{name: getattr(arguments, f"block_{name}") for name in BlockFit.__dataclass_fields__})
    said = _settings(arguments)
    settings = _settings(arguments, defaults(said.kind, said.start))
    result = run_reconstruction(_job(arguments, "reconstruct"), settings, options, arguments.minutes)
    _stopped(result, arguments.out)


def _add_export(commands) -> None:
    parser = commands.add_parser("export", help="a trained student as a .obt file", allow_abbrev=False)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of `train` or `reconstruct`")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.obt")
    parser.add_argument(
        "--embed", choices=("f32", "f16", "bf16", "q8"), default="q8", help="embedding and head; default q8"
    )
    parser.add_argument(
        "--dense", choices=("f32", "f16", "bf16", "q8"), default="f32", help="dense linears; default f32"
    )
    parser.add_argument("--scales", choices=("f32", "f16"), default="f32", help="g, h and columns; default f32")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from .export.run import export_run

    report = export_run(arguments.run_folder, arguments.output, arguments.embed, arguments.dense, arguments.scales)
    bits = report.bits_per_linear_weight
    print(f"{report.path}: {report.file_bytes:,} bytes, {bits:.3f} bits per linear weight")
    if report.exact_zeros:
        print(f"note: {report.exact_zeros} latent weights are exactly 0; they are +1 in the file", file=sys.stderr)


def _add_stories(commands) -> None:
    from .studies.stories.run import STAGES

    parser = commands.add_parser("stories", help="the default model, from texts to .obt, on a CPU", allow_abbrev=False)
    parser.add_argument("--texts", required=True, type=Path, metavar="DIR", help="folder with the TinyStories texts")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="working folder; it goes on if it exists"
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE.toml", help="such as configs/stories.toml")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.obt", help="default: DIR/stories.obt")
    parser.add_argument("--stage", choices=STAGES, help="only this stage")
    parser.set_defaults(run=_stories)


def _stories(arguments: argparse.Namespace) -> None:
    from .studies.stories.run import run_stories

    run_stories(arguments.texts, arguments.out, arguments.config, arguments.output, arguments.stage, arguments.written)


def _add_baselines(commands) -> None:
    parser = commands.add_parser("baselines", help="the paper's comparisons on a small model", allow_abbrev=False)
    _add_teacher(parser)
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], metavar="PATH", help="default: text by the teacher itself"
    )
    parser.add_argument(
        "--validation-data", required=True, nargs="+", type=Path, metavar="PATH", help="texts to compare on"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="working folder; it goes on if it exists"
    )
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE.toml", help="such as configs/baselines.toml"
    )
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="default: DIR/baselines.md, charts beside it")
    parser.set_defaults(run=_baselines)


def _baselines(arguments: argparse.Namespace) -> None:
    from .studies.baselines.run import run_baselines

    run_baselines(
        arguments.teacher,
        arguments.tokenizer,
        arguments.data,
        arguments.validation_data,
        arguments.out,
        arguments.config,
        arguments.report or arguments.out / "baselines.md",
        arguments.written,
    )


def _add_real_model(commands) -> None:
    from .studies.real_model.plan import ROWS, Plan

    parser = commands.add_parser("real-model", help="the paper's table on one real model", allow_abbrev=False)
    _add_teacher(parser)
    for name, words in (("--data", "texts to calibrate and train on"), ("--validation-data", "texts to validate on")):
        parser.add_argument(name, required=True, nargs="+", type=Path, metavar="PATH", help=words)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="working folder; it goes on if it exists")
    parser.add_argument("--engine", metavar="COMMAND", help="that starts onebit; default: this repository's own")
    parser.add_argument(
        "--perplexity-file", required=True, type=Path, metavar="FILE", help="text whose perplexity is measured"
    )
    parser.add_argument("--tasks-data", required=True, type=Path, metavar="DIR", help="folder with the tasks' files")
    for name, field in Plan.__dataclass_fields__.items():
        kind = {"int": int, "float": float}[field.type]
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=field.default, help=f"default {field.default}")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; default: all")
    parser.add_argument(
        "--configs", type=Path, default=Path(__file__).resolve().parents[1] / "configs", metavar="DIR",
        help="folder of paper.toml; default: this repository's",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="*", metavar="NAME",
        help=f"only these, of {', '.join(row.name for row in ROWS)}; without a name: only the report",
    )  # fmt: skip
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="from the rows that are there, charts beside it")
    parser.set_defaults(run=_real_model)


def _real_model(arguments: argparse.Namespace) -> None:
    from .studies.real_model.make import Material
    from .studies.real_model.plan import Plan
    from .studies.real_model.run import run_real_model

    material = Material(
        Plan(**{name: getattr(arguments, name) for name in Plan.__dataclass_fields__}),
        arguments.teacher,
        arguments.tokenizer,
        arguments.data,
        arguments.validation_data,
        arguments.out,
        arguments.configs,
        arguments.threads,
        arguments.written,
    )
    run_real_model(
        material, arguments.rows, arguments.engine, arguments.perplexity_file, arguments.tasks_data, arguments.report
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        _PROGRAM, description="Make 1-bit language models for onebit-run.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_generate, _add_train, _add_export, _add_reconstruct, _add_stories, _add_baselines, _add_real_model):
        add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(given)
    arguments.written = shlex.join(["python", "-m", "onebit_distill", *given])
    try:
        arguments.run(arguments)
    except DistillError as error:
        text = f"{error.code}: {error.message}" + (f" ({error.hint})" if error.hint else "")
        print(f"{_PROGRAM}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{_PROGRAM}: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0
