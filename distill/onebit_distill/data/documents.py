"""Text in, token ids out: reading and tokenising documents.

Tokenised documents lie in a folder of two memory-mapped files, `tokens.bin` (uint32, little-endian, all documents one
after the other) and `offsets.bin` (uint64, where each begins, and the end), with `meta.json` written last: a folder
without it is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DistillError
from ..system.atomic_file import file_error, writing_atomically

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
        with path.open(encoding="utf-8", newline="") as file:  # line ends as they are: they are tokens too
            return file.read()
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
    for number, line in enumerate(_read_text(path).split("\n"), 1):
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
