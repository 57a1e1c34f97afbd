"""A text in WikiText's form once more, with made-up names in the place of rare words: a word has one name within an article.

WikiText-2 in words says <unk> where ordinary writing has the rarest words, those that a reader can only know from further up
in the same article. A student that learned from it alone does not learn to copy them. The names are pieces of the
teacher's vocabulary put together, so that no word of the text tells what comes next, only the text before it.

    python bench/made_up_names.py --teacher TEACHER.gguf --text valid.txt --out renamed.txt --seed 1 --crlf
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onebit_distill.data.teacher import load_teacher  # noqa: E402
from onebit_distill.system.atomic_file import writing_atomically  # noqa: E402

_TITLE = re.compile(r"^ = [^=].* = $", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z]{4,}")
#: words in more articles than that are not rare
_ARTICLES = 2
#: of the words that could have another name
_SHARE = 0.7


def name_pieces(vocabulary: list[str]) -> list[str]:
    """What names are made of: 2 to 4 small letters that stand within words."""
    return sorted(piece for piece in vocabulary if re.fullmatch(r"[a-z]{2,4}", piece))


def articles_of(text: str) -> list[str]:
    begins = [match.start() for match in _TITLE.finditer(text)]
    return [text[begin:end] for begin, end in zip([0, *begins], [*begins, len(text)]) if begin < end]


def renamed(article: str, common: set[str], pieces: list[str], draw: random.Random) -> str:
    """The article with names for most of its words that occur twice and are not common."""
    counts = Counter(_WORD.findall(article))
    names: dict[str, str] = {}
    for word, count in sorted(counts.items()):
        if count >= 2 and word not in common and draw.random() < _SHARE:
            name = "".join(draw.choices(pieces, k=draw.randint(2, 3)))
            names[word] = name.capitalize() if word[0].isupper() else name
    return _WORD.sub(lambda match: names.get(match[0], match[0]), article)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="whose vocabulary the names are made of")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crlf", action="store_true", help="lines end as on Windows")
    args = parser.parse_args()
    tokenizer = load_teacher(args.teacher, weights=False).tokenizer
    pieces = name_pieces(list(tokenizer.get_vocab()))
    articles = articles_of(args.text.read_text(encoding="utf-8"))
    seen = Counter(word for article in articles for word in set(_WORD.findall(article)))
    common = {word for word, count in seen.items() if count > _ARTICLES}
    draw = random.Random(args.seed)
    text = "".join(renamed(article, common, pieces, draw) for article in articles)
    with writing_atomically(args.out) as file:
        file.write((text.replace("\n", "\r\n") if args.crlf else text).encode())


if __name__ == "__main__":
    main()
