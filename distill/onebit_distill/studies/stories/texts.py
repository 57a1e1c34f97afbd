"""The TinyStories texts as documents, and a byte-level BPE of their own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.documents import END_OF_TEXT
from ...errors import DistillError
from .truecase import Truecaser

#: published as train prefix of TinyStories: cased; inside of the next, which is longer and has no capitals
CASED = "tinystories-train-0.9MB.txt"
LOWER_CASED = "tinystories-4MB-lowercase.txt"
#: of TinyStoriesV2-GPT4, cased, stories separated by <|endoftext|>
SECOND_VERSION = "tinystories-10k-lines.txt"

#: every n-th cased story is held back to decide when to stop
_HELD_BACK_EVERY = 25
#: stories that stay together, with what separates them in the file, in documents kept as they are
_STORIES_TOGETHER = 4

#: UTF-8 read as Windows-1252 somewhere on the text's way, as it stands in the published files
_BROKEN = {
    "â€™": "'",
    "â€˜": "'",
    "â€œ": '"',
    "â€�": '"',
    "â€\x9d": '"',
    "â€“": "-",
    "â€”": "-",
    "â€¦": "...",
    "â€": '"',
}
_PLAIN = str.maketrans({"“": '"', "”": '"', "’": "'", "‘": "'", "–": "-", "—": "-", "…": "...", "\u00a0": " "})


@dataclass(frozen=True)
class Stories:
    training: list[str]
    #: cased as published, never re-cased; not in `training`
    held_back: list[str]


def _clean(story: str) -> str:
    """One story with its quotes repaired and no white space at the ends of lines."""
    for broken, repaired in _BROKEN.items():
        story = story.replace(broken, repaired)
    story = re.sub(r"[ \t]+\n", "\n", story.translate(_PLAIN))
    return re.sub(r"\n{3,}", "\n\n", story).strip()


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except OSError as cause:
        hint = "Give the folder with the TinyStories texts as --texts."
        raise DistillError("ERR_DATA", f"{folder / name}: {cause.strerror or cause}", hint) from cause


def _first_version(text: str) -> list[str]:
    """Stories are separated by one line break, paragraphs by two."""
    return re.split(r"(?<!\n)\n(?!\n)", text.strip("\n"))


def read_stories(folder: Path) -> Stories:
    """All stories of the three files, each once. Raises DistillError ERR_DATA.

    The lower-cased ones get their capitals back. The published cased ones are left as they are, in documents of four
    with the line breaks between them, so that the model also knows the raw form of such a file.
    """
    cased = _first_version(_read(folder, CASED))
    # the last story of a prefix is cut off somewhere: the lower-cased file has it whole
    whole, lower = cased[:-1], _first_version(_read(folder, LOWER_CASED))[len(cased) - 1 :]
    second = [story for story in map(_clean, _read(folder, SECOND_VERSION).split(END_OF_TEXT)) if story]
    groups = [whole[i : i + _STORIES_TOGETHER] for i in range(0, len(whole), _STORIES_TOGETHER)]
    groups = ["\n".join(group) for group in groups]
    held_back = [*groups[::_HELD_BACK_EVERY], *second[::_HELD_BACK_EVERY]]
    raw = [group for i, group in enumerate(groups) if i % _HELD_BACK_EVERY != 0]
    second = [story for i, story in enumerate(second) if i % _HELD_BACK_EVERY != 0]
    learned = [_clean(group) for group in raw] + second
    truecaser = Truecaser(learned)
    restored = [truecaser.restore(story) for story in map(_clean, lower) if story]
    return Stories([*raw, *second, *restored], held_back)


def train_tokenizer(texts: list[str], vocabulary: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A byte-level BPE with GPT-2's pre-tokenization: tokenizer.json and tokenizer_config.json.

    <|endoftext|> (id 0) both begins and ends a story.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    config = {
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "add_bos_token": True,
        "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return json.loads(tokenizer.to_str()), config
