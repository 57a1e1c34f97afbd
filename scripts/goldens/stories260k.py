"""The greedy texts of stories260K, by llama_reference.py instead of the engine or llama2.c.

    distill/.venv/bin/python scripts/goldens/stories260k.py

says of each text in test/goldens/stories260K/greedy.json, which llama2.c's run.c wrote, whether it comes out the same;
it ends with status 1 if one does not.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
from llama_reference import Shape, logits, read_llama2c

FOLDER = Path(__file__).resolve().parents[2] / "test" / "goldens" / "stories260K"
BOS = 1
#: ids of the bytes 0 to 255 begin here, behind unknown, BOS and EOS
FIRST_BYTE = 3


class Vocabulary:
    """llama2.c's tokenizer.bin: a score and the bytes of each token."""

    def __init__(self, path: Path, size: int) -> None:
        data, at = path.read_bytes(), 4
        self.pieces, self.scores = [], []
        for _ in range(size):
            score, length = struct.unpack_from("<fi", data, at)
            self.scores.append(score)
            self.pieces.append(data[at + 8 : at + 8 + length])
            at += 8 + length
        self.ids = {piece: token for token, piece in enumerate(self.pieces)}

    def encode(self, text: str) -> list[int]:
        """BOS, then a space in front of the text, its characters or else their bytes, and as long as there is one the
        best-scored pair of neighbours that is a token in their place."""
        ids: list[int] = []
        for character in f" {text}" if text else "":
            data = character.encode()
            ids += [self.ids[data]] if data in self.ids else [FIRST_BYTE + byte for byte in data]
        while True:
            pairs = [self.ids.get(self.pieces[a] + self.pieces[b]) for a, b in zip(ids, ids[1:], strict=False)]
            known = [(self.scores[token], -at) for at, token in enumerate(pairs) if token is not None]
            if not known:
                return [BOS, *ids]
            at = -max(known)[1]
            ids[at : at + 2] = [pairs[at]]

    def decode(self, ids: list[int]) -> str:
        """Without BOS, and without the space in front of what follows it."""
        pieces = [bytes([t - FIRST_BYTE]) if FIRST_BYTE <= t < FIRST_BYTE + 256 else self.pieces[t] for t in ids[1:]]
        return b"".join(pieces).removeprefix(b" ").decode()


def greedy(shape: Shape, tensors: dict[str, np.ndarray], ids: list[int], positions: int) -> list[int]:
    """The ids and what follows them, each the likeliest, until so many positions were computed or a text ends (BOS)."""
    ids = list(ids)
    while len(ids) <= positions:
        token = int(logits(shape, tensors, ids, last=True)[0].argmax())
        if token == BOS:
            break
        ids.append(token)
    return ids


def main() -> int:
    shape, tensors = read_llama2c(FOLDER / "stories260K.bin")
    vocabulary = Vocabulary(FOLDER / "tok512.bin", shape.vocab_size)
    differing = 0
    for case in json.loads((FOLDER / "greedy.json").read_text())["cases"]:
        text = vocabulary.decode(greedy(shape, tensors, vocabulary.encode(case["prompt"]), case["n"]))
        same = text == case["text"]
        differing += not same
        print(f"{case['prompt']!r}: {'the same' if same else f'differs: {text!r}'}")
    return min(differing, 1)


if __name__ == "__main__":
    sys.exit(main())
