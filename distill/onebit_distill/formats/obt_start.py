"""The start that `onebit convert --type onebit` writes: signs, g and h of every linear, read back to train from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..errors import DistillError
from ..model.config import HF_LINEARS
from ..model.starts import GivenScales
from ..system.atomic_file import file_error
from .crc32c import crc32c

_HINT = "Make one of this teacher: onebit convert TEACHER -o start.obt --type onebit"
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}
#: far beyond any header: keeps a file of another kind from filling the memory
_MOST_HEADER_BYTES = 64 << 20


@dataclass(frozen=True)
class ObtStart:
    #: whether the file's linears have the paper's LayerNorm behind them
    layernorm: bool
    #: by the full name of a linear, such as `model.layers.0.self_attn.q_proj`
    scales: dict[str, GivenScales]


class _Tensors:
    """The tensors of a `.obt` file, each compared with its checksum as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= _MOST_HEADER_BYTES:
            raise ValueError("it has no header")
        header = json.loads(file.read(size))
        metadata = header.pop("__metadata__")
        if metadata["format"] != "obt":
            raise ValueError("its header is of something else")
        self.config: dict[str, Any] = json.loads(metadata["config"])
        self._file, self._at, self._entries = file, 8 + size, header
        sums = json.loads(metadata["crc32c"])["tensors"]
        self._sums = {name: sums[8 * i : 8 * i + 8] for i, name in enumerate(header)}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        first, end = entry["data_offsets"]
        self._file.seek(self._at + first)
        data = self._file.read(end - first)
        if f"{crc32c(data):08x}" != self._sums[name]:
            raise DistillError("ERR_CHECKSUM", f"{self._file.name}: tensor {name} is damaged")
        return np.frombuffer(data, _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _layernorm(config: dict[str, Any]) -> bool:
    """Whether there is LayerNorm; ValueError unless the linears are single sign matrices with g and h."""
    signs = [kind for kind in config["linears"].values() if kind["kind"] == "sign"]
    if not signs or any(kind["rank"] != 0 or kind.get("column") for kind in signs):
        raise ValueError("its linears are not signs with g and h alone")
    found = {bool(kind["layernorm"]) for kind in signs}
    if len(found) > 1:
        raise ValueError("some of its linears have LayerNorm and some have not")
    return found.pop()


def read_start(path: str | Path) -> ObtStart:
    """Reads a start. Its embedding and norms are left where they are: the student has the teacher's.

    Raises DistillError ERR_FILE_NOT_FOUND, ERR_START_FIT, ERR_CHECKSUM.
    """
    scales = {}
    try:
        with open(path, "rb") as file:
            tensors = _Tensors(file)
            layernorm = _layernorm(tensors.config)
            for layer in range(tensors.config["n_layers"]):
                for role, theirs in HF_LINEARS.items():
                    name = f"layers.{layer}.{role}"
                    if f"{name}.sign" not in tensors:
                        continue
                    g, sign, h = (tensors.read(f"{name}.{part}") for part in ("g", "sign", "h"))
                    negative = np.unpackbits(sign, axis=1, bitorder="little").astype(bool)
                    parts = (torch.from_numpy(part.astype(np.float32)) for part in (g, h))
                    scales[f"model.layers.{layer}.{theirs}"] = GivenScales(*parts, torch.from_numpy(negative))
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise DistillError("ERR_START_FIT", f"{path} is no start: {str(cause)[:100]}", _HINT) from cause
    return ObtStart(layernorm, scales)
