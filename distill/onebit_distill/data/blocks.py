"""Blocks of token ids to train on: a fixed validation split, and an order that resumes anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import DistillError
from .documents import TokenStore

#: the official script concatenates documents 1000 at a time and drops what does not fill a block (datasets.map)
OFFICIAL_PACKING_DOCUMENTS = 1000


def blocks_for(tokens: int, block: int) -> int:
    """How many blocks hold so many tokens."""
    return math.ceil(tokens / block)


def split_documents(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and for validation. The split depends on nothing but the number of documents."""
    if share == 0 or count < 2:
        return np.arange(count), np.arange(0)
    order = np.random.Generator(np.random.PCG64(20240217)).permutation(count)
    kept = max(1, round(count * share))
    return np.sort(order[kept:]), np.sort(order[:kept])


@dataclass(frozen=True)
class _Cut:
    """Documents in an order, as one long line of tokens that blocks are cut from."""

    order: np.ndarray
    #: where each of them ends in the line
    ends: np.ndarray
    #: first token of each block
    starts: np.ndarray


class Blocks:
    """Training blocks by number, 0, 1, 2 … without end; the same number is always the same block.

    packing `reshuffle`: every epoch puts the documents into a new order and cuts that, so a document is met at other
    places and with other neighbours. `fixed` is the official way: blocks are cut once, from 1000 documents at a time,
    remainders dropped, and every epoch shuffles the blocks.
    """

    def __init__(self, store: TokenStore, chosen: np.ndarray, block: int, packing: str, seed: int) -> None:
        self.store, self.chosen, self.block, self.packing, self.seed = store, chosen, block, packing, seed
        lengths = store.lengths()[chosen]
        if packing == "fixed":
            starts, begin = [], 0
            for first in range(0, len(chosen), OFFICIAL_PACKING_DOCUMENTS):
                size = int(lengths[first : first + OFFICIAL_PACKING_DOCUMENTS].sum())
                starts.append(begin + np.arange(size // block) * block)
                begin += size
            self._fixed = _Cut(chosen, np.cumsum(lengths), np.concatenate(starts) if starts else np.arange(0))
            self.per_epoch = len(self._fixed.starts)
        else:
            self.per_epoch = int(lengths.sum()) // block
        if self.per_epoch == 0:
            message = f"The data have {int(lengths.sum())} tokens to train on, less than one block of {block}."
            raise DistillError("ERR_DATA", message, "Give more text or a smaller block.")
        self._epoch, self._cut, self._shuffle = -1, None, None

    def _enter(self, epoch: int) -> None:
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        if self.packing == "fixed":
            self._cut, self._shuffle = self._fixed, random.permutation(self.per_epoch)
        else:
            order = self.chosen[random.permutation(len(self.chosen))]
            ends = np.cumsum(self.store.lengths()[order])
            self._cut, self._shuffle = _Cut(order, ends, np.arange(self.per_epoch) * self.block), None
        self._epoch = epoch

    def number_in_file(self, index: int) -> int:
        """Which of the fixed blocks number `index` is."""
        epoch, within = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            self._enter(epoch)
        return within if self._shuffle is None else int(self._shuffle[within])

    def __getitem__(self, index: int) -> np.ndarray:
        """int64 [block]"""
        number = self.number_in_file(index)
        return self._read(int(self._cut.starts[number]))

    def _read(self, start: int) -> np.ndarray:
        cut, parts, missing = self._cut, [], self.block
        at = int(np.searchsorted(cut.ends, start, side="right"))
        while missing > 0:
            document = self.store.document(int(cut.order[at]))
            begin = start - (int(cut.ends[at]) - len(document))
            part = document[begin : begin + missing]
            parts.append(part)
            missing -= len(part)
            start += len(part)
            at += 1
        return np.concatenate(parts).astype(np.int64)

    def batch(self, first: int, count: int) -> np.ndarray:
        """Blocks first … first + count - 1, int64 [count, block]."""
        return np.stack([self[index] for index in range(first, first + count)])

    def first(self, tokens: int) -> np.ndarray:
        """The first blocks that hold so many tokens, of one epoch at most; int64 [n, block]."""
        return self.batch(0, min(self.per_epoch, blocks_for(tokens, self.block)))


def validation_blocks(store: TokenStore, chosen: np.ndarray, block: int, most: int) -> np.ndarray:
    """The validation documents one after the other in consecutive blocks, int64 [n, block]; n may be 0."""
    if len(chosen) == 0:
        return np.zeros((0, block), np.int64)
    line = np.concatenate([store.document(int(index)) for index in chosen]).astype(np.int64)
    count = min(len(line) // block, most)
    return line[: count * block].reshape(count, block)
