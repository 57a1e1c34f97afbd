"""Checkpoints that a kill at any moment cannot spoil.

A checkpoint is a folder `checkpoint-0001200`: weights, optimiser state, moving average (all safetensors), `state.json`,
and `DONE` with the length and CRC of every file. It is written under another name, forced to the disk and renamed; a
folder whose `DONE` does not fit is not a checkpoint. Tensors are whole, so a run may go on with another number of
processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import DistillError
from ..system.atomic_file import file_error
from ..system.processes import World
from .sharding import place, whole

_NAME = re.compile(r"checkpoint-(\d{7})$")
_TEMPORARY = ".tmp-checkpoint-"


@dataclass
class Progress:
    """Where a run is, besides its tensors."""

    step: int = 0
    #: optimiser steps that fp16 left out because of an overflow
    skipped: int = 0
    best_validation: float | None = None
    loss_scale: dict[str, Any] | None = None
    #: how long a validation and a checkpoint take, where time is limited
    closing_seconds: float = 0.0


def checkpoint_steps(run: Path) -> list[int]:
    """Steps of the finished checkpoints, ascending."""
    found = []
    for path in run.glob("checkpoint-*"):
        match = _NAME.match(path.name)
        if match and _is_whole(path):
            found.append(int(match.group(1)))
    return sorted(found)


def checkpoint_path(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step:07d}"


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / "DONE").read_text())["files"]
        return all((folder / name).stat().st_size == entry["bytes"] for name, entry in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _optimiser_tensors(model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {}
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                for key, value in optimiser.state[parameter].items():
                    tensors[f"{names[parameter]}|{key}"] = whole(value).contiguous()
    return tensors


def _random_state(world: World) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(world.device)
    return states


def save_checkpoint(
    run: Path,
    model: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    average: dict[str, Tensor] | None,
    progress: Progress,
    world: World,
    keep: int,
) -> None:
    """Writes a checkpoint and removes the oldest beyond `keep`. Every process calls this, the first one writes.

    Raises DistillError ERR_DISK_FULL and others of `file_error`; earlier checkpoints are then untouched.
    """
    contents = {
        "model.safetensors": {name: whole(value).contiguous() for name, value in model.state_dict().items()},
        "optimiser.safetensors": _optimiser_tensors(model, optimisers),
        "random.safetensors": _random_state(world),
    }
    if average is not None:
        contents["average.safetensors"] = {name: whole(value).contiguous() for name, value in average.items()}
    problem: DistillError | None = None
    if world.is_first:
        target = checkpoint_path(run, progress.step)
        temporary = run / f"{_TEMPORARY}{os.getpid()}"
        try:
            _write_folder(temporary, contents, progress)
            if target.exists():
                shutil.rmtree(target)  # only ever one that was not whole, or this very state
            os.rename(temporary, target)
            _sync(run)
        except OSError as cause:
            problem = file_error(cause, target, "writing")
            problem.hint = "Earlier checkpoints are kept; the same command goes on from the last one."
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if problem is None:
            _remove_old(run, keep)
    if world.any(problem is not None):
        raise problem or DistillError("ERR_IO", "the first process could not write its checkpoint")


def _write_folder(folder: Path, contents: dict[str, dict[str, Tensor]], progress: Progress) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = {}
    files = {name: lambda tensors=tensors: save(tensors) for name, tensors in contents.items()}
    files["state.json"] = lambda: json.dumps(vars(progress)).encode()
    for name, make in files.items():
        data = make()
        _write_durably(folder / name, data)
        done[name] = {"bytes": len(data), "crc32": zlib.crc32(data)}
    _write_durably(folder / "DONE", json.dumps({"files": done}).encode())
    _sync(folder)


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _remove_old(run: Path, keep: int) -> None:
    for step in checkpoint_steps(run)[:-keep]:
        # the marker first: a removal that is interrupted must not leave something that looks whole
        (checkpoint_path(run, step) / "DONE").unlink(missing_ok=True)
        shutil.rmtree(checkpoint_path(run, step), ignore_errors=True)
    for leftover in run.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _checked(folder: Path) -> None:
    for name, entry in json.loads((folder / "DONE").read_text())["files"].items():
        crc = 0
        with open(folder / name, "rb") as file:
            while piece := file.read(1 << 22):
                crc = zlib.crc32(piece, crc)
        if crc != entry["crc32"]:
            hint = f"Delete {folder}; the run goes on from the checkpoint before it."
            raise DistillError("ERR_CHECKPOINT", f"{folder / name} is damaged (its checksum differs)", hint)


def load_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    average: dict[str, Tensor] | None,
    world: World,
) -> Progress:
    """Restores everything as it was. Raises DistillError ERR_CHECKPOINT when a file is damaged or does not fit."""
    folder = checkpoint_path(run, step)
    try:
        _checked(folder)
        weights = load_file(folder / "model.safetensors")
        for name, target in model.state_dict().items():
            place(target, weights[name])
        _restore_optimisers(model, optimisers, load_file(folder / "optimiser.safetensors"))
        if average is not None:
            averaged = load_file(folder / "average.safetensors")
            for name, target in average.items():
                place(target, averaged[name])
        states = load_file(folder / "random.safetensors")
        torch.set_rng_state(states["cpu"])
        if world.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], world.device)
        return Progress(**json.loads((folder / "state.json").read_text()))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as cause:
        message = f"{folder} does not fit this run ({str(cause)[:200]})"
        raise DistillError("ERR_CHECKPOINT", message, "Give another --out to begin anew.") from cause


def _restore_optimisers(model: nn.Module, optimisers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("|")
        by_name.setdefault(name, {})[entry] = value
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                for entry, value in by_name.get(names[parameter], {}).items():
                    if value.shape == parameter.shape:
                        target = torch.zeros_like(parameter)
                        place(target, value)
                    else:  # a step count
                        target = value.to(parameter.device) if parameter.device.type == "cuda" else value
                    optimiser.state[parameter][entry] = target


def load_weights(run: Path) -> tuple[int, dict[str, Tensor]]:
    """Step and weights of the last checkpoint: the moving average where the run keeps one.

    Raises DistillError ERR_NO_CHECKPOINT, ERR_CHECKPOINT.
    """
    steps = checkpoint_steps(run)
    if not steps:
        hint = "Give the --out folder of a training run that has reached its first checkpoint."
        raise DistillError("ERR_NO_CHECKPOINT", f"{run} holds no finished checkpoint", hint)
    folder = checkpoint_path(run, steps[-1])
    _checked(folder)
    weights = load_file(folder / "model.safetensors")
    if (folder / "average.safetensors").exists():
        weights.update(load_file(folder / "average.safetensors"))
    return steps[-1], weights
