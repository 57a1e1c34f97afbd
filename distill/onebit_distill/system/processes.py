"""One process or many: `torchrun` sets the environment, the command line stays the same."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import DistillError


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        seen = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(seen, op=dist.ReduceOp.MAX)
        return bool(seen.item())

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def choose_device(name: str) -> torch.device:
    """auto | cpu | cuda | cuda:N. Raises DistillError ERR_DEVICE."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise DistillError("ERR_DEVICE", f"device: {name!r} is not known to torch") from cause
    if device.type not in ("cpu", "cuda"):
        raise DistillError("ERR_DEVICE", f"device must be auto, cpu or cuda, found {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DistillError("ERR_DEVICE", "device: there is no CUDA device here", "Use --device cpu.")
    return device


def multiplied_in(precision: str, device: torch.device) -> str:
    """f32 in the place of bf16 on CPUs without products of that (before AVX-512): there they are emulated, five to thirty
    times slower. Otherwise the precision as it is."""
    if precision != "bf16" or device.type != "cpu":
        return precision
    # False too where PyTorch was built without oneDNN, and multiplies bf16 one by one
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    return "bf16" if supported() else "f32"


def _pin(local: int, processes: int) -> None:
    """Gives each process its own share of the cores: two that are left to the scheduler were seen on one core."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= processes:
            os.sched_setaffinity(0, cores[local::processes])
            torch.set_num_threads(len(cores[local::processes]))


@contextmanager
def world(device_name: str):
    """Joins the processes torchrun started (nccl between GPUs, gloo between CPUs); alone without torchrun."""
    device = choose_device(device_name)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, device)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    else:
        _pin(local, int(os.environ.get("LOCAL_WORLD_SIZE", str(size))))
    # Whoever has joined the processes before keeps them: a second meeting under torchrun's address never ends.
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        if ours:
            dist.destroy_process_group()


def _is_one_of_many() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def end_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does: Python's own way is at once, and programs that it has started go on.

    Not one among several: `torchrun` would wait for those that are in the middle of an exchange, where Python hears nothing.
    """
    if not _is_one_of_many():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def leave(status: int) -> NoReturn:
    """Ends this process; one among several without taking Python down first.

    gloo's threads outlive their process group (torch 2.15), and the one that ran the last exchange still has to give
    its tensor back to Python. When Python has begun to go by then, that thread ends in abort() ("terminate called
    without an active exception"), and torchrun calls a run failed that has written everything.
    """
    if _is_one_of_many():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
