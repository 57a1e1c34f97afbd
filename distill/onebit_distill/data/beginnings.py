"""Beginnings of texts that a teacher goes on with: a few tokens from anywhere in texts that there are.

A teacher that begins with any token writes about anything. Whoever has some text of the kind that a student is for, but not
enough to learn from, gets more of that kind this way: what is read is theirs, and what follows is the teacher's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DistillError
from .documents import documents
from .teacher import Teacher


class Beginnings:
    """`tokens` ids from a place of `ids` that a number in [0, 1) says; fewer where a document is shorter."""

    def __init__(self, texts: Sequence[np.ndarray], tokens: int, bos: int | None = None) -> None:
        """texts: ids of each document; bos: what stands in front of each beginning, if anything."""
        self.texts, self.tokens, self.bos = [text for text in texts if len(text)], tokens, bos
        if not self.texts:
            raise DistillError("ERR_DATA", "The texts to begin from are empty.")
        # where a beginning of full length may start; the whole of a shorter document is one
        self.ends = np.cumsum([max(1, len(text) - tokens + 1) for text in self.texts])

    def at(self, chance: float) -> list[int]:
        place = min(int(chance * int(self.ends[-1])), int(self.ends[-1]) - 1)
        index = int(np.searchsorted(self.ends, place, side="right"))
        first = place - (int(self.ends[index - 1]) if index else 0)
        ids = self.texts[index][first : first + self.tokens].tolist()
        return ids if self.bos is None else [self.bos, *ids]

    def digest(self) -> str:
        """SHA-256 of the ids: other texts begin other sequences."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.astype("<u4").tobytes() + b"\n")
        return digest.hexdigest()


def read_beginnings(paths: Sequence[Path], teacher: Teacher, tokens: int) -> Beginnings:
    """Raises DistillError ERR_DATA."""
    texts = [np.asarray(teacher.encode(text, bos=False), dtype=np.int64) for text in documents(paths)]
    own = teacher.bos_id not in (None, *teacher.eos_ids)  # otherwise it stands between texts
    return Beginnings(texts, tokens, teacher.bos_id if own else None)
