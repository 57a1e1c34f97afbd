"""Text in, blocks of token ids out: reading, tokenising, a fixed validation split, an order that resumes anywhere.

Tokenised documents lie in a folder of two memory-mapped files, `tokens.bin` (uint32, little-endian, all documents one
after the other) and `offsets.bin` (uint64, where each begins, and the end), with `meta.json` written last: a folder
without it is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .atomic_file import file_error, writing_atomically
from .errors import DistillError

#: the official script concatenates documents 1000 at a time and drops what does not fill a block (datasets.map)
OFFICIAL_PACKING_DOCUMENTS = 1000

#: documents of a text file are separated by this, as in the TinyStories files; without it, by empty lines
END_OF_TEXT = "<|endoftext|>"


class Encoder(Protocol):
    """What is needed of a teacher's tokenizer."""

    bos_id: int | None
    eos_id: int | None

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]: ...


def _bad_data(path: Path | str, problem: str, hint: str | None = None) -> DistillError:
    return DistillError("ERR_DATA", f"{path}: {problem}", hint)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise _bad_data(path, f"is not UTF-8 ({cause})") from cause
    except OSError as cause:
        raise _bad_data(path, cause.strerror or str(cause)) from cause


def _text_documents(path: Path) -> Iterator[str]:
    text = _read_text(path)
    parts = text.split(END_OF_TEXT) if END_OF_TEXT in text else re.split(r"\n\s*\n\s*\n", text)
    yield from (part.strip() for part in parts if part.strip())


def _jsonl_documents(path: Path) -> Iterator[str]:
    """Lines of `{"text": …}`, as the official trainer and `generate` have them."""
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as cause:
            raise _bad_data(path, f'line {number} is not an object with a "text"') from cause
        if not isinstance(text, str):
            raise _bad_data(path, f'line {number}: "text" is not a string')
        if text.strip():
            yield text


def documents(paths: Sequence[str | Path]) -> Iterator[str]:
    """Documents of .txt and .jsonl files and of folders of them, in the order of the names.

    Raises DistillError ERR_DATA.
    """
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(item for item in path.iterdir() if item.suffix in (".txt", ".jsonl"))
            if not inside:
                raise _bad_data(path, "holds no .txt and no .jsonl file")
            yield from documents(inside)
        elif path.suffix == ".jsonl":
            yield from _jsonl_documents(path)
        elif path.suffix == ".txt":
            yield from _text_documents(path)
        else:
            raise _bad_data(path, "is neither a .txt nor a .jsonl file nor a folder" if path.exists() else "not found")


def tokenise(texts: Iterable[str], encoder: Encoder, folder: Path) -> TokenStore:
    """Writes the documents as ids, BOS before and EOS behind each where the tokenizer has them (official kd stage).

    Where both are one token it stands once between documents.

    Raises DistillError ERR_DATA when there is no text at all.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise file_error(cause, folder, "writing") from cause
    before = [] if encoder.bos_id is None or encoder.bos_id == encoder.eos_id else [encoder.bos_id]
    behind = [] if encoder.eos_id is None else [encoder.eos_id]
    pieces, lengths = [], []
    for text in texts:
        ids = np.asarray([*before, *encoder.encode(text, bos=False), *behind], dtype="<u4")
        pieces.append(ids)
        lengths.append(len(ids))
    if not pieces:
        raise DistillError("ERR_DATA", "The data hold no text.", "Give text files, JSONL files or folders with them.")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<u8")
    meta = json.dumps({"documents": len(pieces), "tokens": int(offsets[-1])}).encode()
    contents = {"tokens.bin": np.concatenate(pieces).tobytes(), "offsets.bin": offsets.tobytes(), "meta.json": meta}
    for name, data in contents.items():
        with writing_atomically(folder / name) as file:
            file.write(data)
    return TokenStore(folder)


def is_finished(folder: Path) -> bool:
    return (folder / "meta.json").exists()


class TokenStore:
    """Tokenised documents, memory-mapped. Raises DistillError ERR_DATA for files that do not fit together."""

    def __init__(self, folder: Path) -> None:
        try:
            meta = json.loads((folder / "meta.json").read_text())
            self.tokens = np.memmap(folder / "tokens.bin", dtype="<u4", mode="r")
            self.offsets = np.fromfile(folder / "offsets.bin", dtype="<u8").astype(np.int64)
        except (OSError, ValueError) as cause:
            raise _bad_data(folder, f"is not a folder of tokens ({cause})") from cause
        if len(self.offsets) != meta["documents"] + 1 or len(self.tokens) != meta["tokens"]:
            raise _bad_data(folder, "the token files do not have the lengths that meta.json says", "Delete the folder.")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def digest(self) -> str:
        """SHA-256 of the ids: a run resumed on other data is refused."""
        return hashlib.sha256(np.ascontiguousarray(self.tokens)).hexdigest()


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


def validation_blocks(store: TokenStore, chosen: np.ndarray, block: int, most: int) -> np.ndarray:
    """The validation documents one after the other in consecutive blocks, int64 [n, block]; n may be 0."""
    if len(chosen) == 0:
        return np.zeros((0, block), np.int64)
    line = np.concatenate([store.document(int(index)) for index in chosen]).astype(np.int64)
    count = min(len(line) // block, most)
    return line[: count * block].reshape(count, block)
