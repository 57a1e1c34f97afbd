"""The teacher's k likeliest tokens of every training block on disk, so that later epochs need no teacher."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..model.llama import Llama
from ..system.atomic_file import file_error
from .blocks import Blocks

_PIECE_BYTES = 1 << 24


class TopKCache:
    """Filled as blocks are first met. Ids are uint32, log-probabilities float16: 6 k bytes a token.

    Files: `ids.bin`, `logp.bin` [blocks, T, k] and `filled.bin` [blocks]; blocks are those of `packing = fixed`.
    """

    def __init__(self, folder: Path, blocks: Blocks, k: int) -> None:
        self.blocks, self.k = blocks, k
        shape = (blocks.per_epoch, blocks.block, k)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.ids = _mapped(folder / "ids.bin", "<u4", shape)
            self.log_p = _mapped(folder / "logp.bin", "<f2", shape)
            self.filled = _mapped(folder / "filled.bin", "u1", shape[:1])
        except OSError as cause:
            raise file_error(cause, folder, "writing") from cause

    @torch.no_grad()
    def lookup(self, teacher: Llama, ids: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """int64 [B, T, k] and float32 [B, T, k] for the batch `ids` [B, T] whose first block is number `first`."""
        rows = [self.blocks.number_in_file(first + i) for i in range(len(ids))]
        if not self.filled[rows].all():
            log_p, top = torch.log_softmax(teacher(ids).logits.float(), dim=-1).topk(self.k, dim=-1)
            self.ids[rows], self.log_p[rows] = top.cpu().numpy(), log_p.cpu().numpy()
            self.ids.flush(), self.log_p.flush()  # before what says that they are there
            self.filled[rows] = 1
        top = torch.from_numpy(self.ids[rows].astype(np.int64)).to(ids.device)
        return top, torch.from_numpy(self.log_p[rows].astype(np.float32)).to(ids.device)


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> np.memmap:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not path.exists() or path.stat().st_size != size:
        _reserve(path, size)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _reserve(path: Path, size: int) -> None:
    """A file of zeros that has its place on the disk: into a hole, a full disk would end the process with SIGBUS.

    Under another name first, since a file of the right size counts as reserved.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.writelines(bytes(min(_PIECE_BYTES, size - first)) for first in range(0, size, _PIECE_BYTES))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
