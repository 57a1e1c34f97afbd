"""What a run was computed with, in words: minutes on the clock say nothing without it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from .processes import multiplied_in

_ABOUT = Path("/proc/cpuinfo")
#: that tell processors apart whose name is the same, as on rented machines; by the names that Linux has for them
_FIELDS = {"cpu family": "family", "model": "model"}


def _processor(about: Path) -> str:
    """By its name, where Linux tells with family and model; as Python knows it otherwise."""
    try:
        lines = about.read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # Arm's processors have no name there
    if not found.get("model name"):
        return platform.processor() or platform.machine()
    numbers = [f"{word} {found[name]}" for name, word in _FIELDS.items() if found.get(name)]
    return ", ".join([found["model name"], *numbers])


def describe_machine(threads: int, about: Path = _ABOUT) -> str:
    """One line. threads: that PyTorch was given; 0: as many as it takes by itself. about: cpuinfo of Linux."""
    # "DEFAULT", "AVX2", "AVX512", or another family's word
    unit = torch.backends.cpu.get_cpu_capability()
    products = multiplied_in("bf16", torch.device("cpu"))
    count = threads or torch.get_num_threads()
    return f"{_processor(about)}; PyTorch with {unit}, products in {products}; {count} thread{'' if count == 1 else 's'}"
