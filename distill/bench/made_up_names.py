"""A text in WikiText's form once more, with made-up names in the place of rare words: a word has one name within an article.

WikiText-2 in words says <unk> where ordinary writing has the rarest words, those that a reader can only know from further up
in the same article. A student that learned from it alone does not learn to copy them. The names are words and pieces of
the teacher's vocabulary, so that no word of the text tells what comes next, only the text before it. All of them are dealt
before one comes again; with --rare-in, only those that these texts show fewer than 10 times.

    python bench/made_up_names.py --teacher TEACHER.gguf --text valid.txt --out renamed.txt --seed 1 --crlf --rare-in data/
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onebit_distill.data.documents import documents  # noqa: E402
from onebit_distill.data.teacher import load_teacher  # noqa: E402
from onebit_distill.system.atomic_file import writing_atomically  # noqa: E402

_TITLE = re.compile(r"^ = [^=].* = $", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z]{4,}")
#: words in more articles than that are not rare
_ARTICLES = 2
#: of the words that could have another name
_SHARE = 0.7
#: a token that texts show less often is rare in them
_RARE = 10


class Deck:
    """Cards dealt in a random order, all of them before one comes again."""

    def __init__(self, cards: list[str], draw: random.Random) -> None:
        self._cards, self._draw, self._left = cards, draw, []

    def deal(self) -> str:
        if not self._left:
            self._left = self._draw.sample(self._cards, len(self._cards))
        return self._left.pop()


class Names:
    """Names that begin with a token that begins words, capital letter or not as asked for; half of them go on with another."""

    def __init__(self, vocabulary: list[str], draw: random.Random) -> None:
        def deck(pattern: str) -> Deck:
            return Deck(sorted(match[1] for match in (re.fullmatch(pattern, piece) for piece in vocabulary) if match), draw)

        # byte-level vocabularies write the space before a word as \u0120
        self._capital, self._small = deck("\u0120([A-Z][a-z]+)"), deck("\u0120([a-z]+)")
        self._ends = deck("([a-z]{2,})")
        self._draw = draw

    def make(self, capital: bool) -> str:
        name = (self._capital if capital else self._small).deal()
        return name + self._ends.deal() if self._draw.random() < 0.5 else name


def articles_of(text: str) -> list[str]:
    begins = [match.start() for match in _TITLE.finditer(text)]
    return [text[begin:end] for begin, end in zip([0, *begins], [*begins, len(text)]) if begin < end]


def renamed(article: str, common: set[str], made_up: Names, draw: random.Random) -> str:
    """The article with names for most of its words that are not common."""
    names: dict[str, str] = {}
    for word in sorted(set(_WORD.findall(article))):
        if word not in common and draw.random() < _SHARE:
            names[word] = made_up.make(word[0].isupper())
    return _WORD.sub(lambda match: names.get(match[0], match[0]), article)


def rare_tokens(tokenizer, paths: list[Path]) -> list[str]:
    counts = Counter(id for text in documents(paths) for id in tokenizer.encode(text, add_special_tokens=False).ids)
    return [piece for piece, id in tokenizer.get_vocab().items() if counts[id] < _RARE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="whose vocabulary the names are made of")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crlf", action="store_true", help="lines end as on Windows")
    parser.add_argument("--rare-in", type=Path, nargs="+", metavar="PATH", help="texts whose rare tokens make the names")
    args = parser.parse_args()
    tokenizer = load_teacher(args.teacher, weights=False).tokenizer
    articles = articles_of(args.text.read_text(encoding="utf-8"))
    seen = Counter(word for article in articles for word in set(_WORD.findall(article)))
    common = {word for word, count in seen.items() if count > _ARTICLES}
    draw = random.Random(args.seed)
    made_up = Names(rare_tokens(tokenizer, args.rare_in) if args.rare_in else list(tokenizer.get_vocab()), draw)
    text = "".join(renamed(article, common, made_up, draw) for article in articles)
    with writing_atomically(args.out) as file:
        file.write((text.replace("\n", "\r\n") if args.crlf else text).encode())


if __name__ == "__main__":
    main()
