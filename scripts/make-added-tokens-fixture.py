"""Ids and texts that Hugging Face's tokenizers gives for added tokens with every flag, as test/fixtures/added-tokens.json.

pip install 'tokenizers==0.23.3', then: python scripts/make-added-tokens-fixture.py
"""
import json
import random
from pathlib import Path

from tokenizers import Tokenizer

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def byte_characters():
    own = lambda byte: 33 <= byte < 127 or 161 <= byte != 173
    others = iter(range(256, 512))
    return [chr(byte) if own(byte) else chr(next(others)) for byte in range(256)]


def added(start, *tokens):
    return [{"id": start + i, "content": content, **{flag: flag in flags for flag in FLAGS}} for i, (content, *flags) in enumerate(tokens)]


def byte_level(normalizer, *tokens):
    return {
        "version": "1.0",
        "added_tokens": added(256, *tokens),
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "unk_token": None, "vocab": {c: b for b, c in enumerate(byte_characters())}, "merges": []},
    }


def sentence_piece(*tokens):
    """As Llama's own: a space sign in front of every piece of text, spaces become space signs."""
    space = "\u2581"
    names = ["<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)] + [space, *"abcxyz"]
    steps = [{"type": "Prepend", "prepend": space}, {"type": "Replace", "pattern": {"String": " "}, "content": space}]
    decoders = [{"type": "Replace", "pattern": {"String": space}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "version": "1.0",
        "added_tokens": added(len(names), *tokens),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": {name: i for i, name in enumerate(names)}, "merges": []},
    }


CASES = {
    "single words": byte_level(None, ("abc", "single_word"), ("<w>", "single_word", "special"), ("ad", "single_word"), ("éé", "single_word")),
    "white space": byte_level(None, ("<l>", "lstrip", "special"), ("<r>", "rstrip"), ("<lr>", "lstrip", "rstrip", "special"), ("\n\n",), ("  ",)),
    "one in another": byte_level(None, ("<a>",), ("<a><b>", "special"), ("b>", "single_word"), ("<a", "special"), ("<a><b>c", "lstrip")),
    "all flags": byte_level(None, ("<x>", "single_word", "lstrip", "rstrip", "special"), ("yz", "single_word", "lstrip"), (" q", "rstrip")),
    "normalized": byte_level({"type": "NFC"}, ("é!", "normalized"), ("<n>", "normalized", "lstrip"), ("<s>", "special"), ("e\u0301?",)),
    "lower case": byte_level({"type": "Lowercase"}, ("<Tool>", "normalized"), ("<Raw>",), ("ABC", "normalized", "single_word")),
    "space signs": sentence_piece(("<tool>", "normalized"), ("<raw>",), ("<sp>", "special"), ("<a b>", "normalized"), ("<l>", "lstrip", "special"), ("<r>", "rstrip")),
}
SCRAPS = [" ", "  ", "\n", "\n\n", "\t", "\u0085", "\ufeff", "\u00a0", "\u3000", "\u200b", "_", "-", "a", "b", "abc", "ad", "d", "1", "é", "e\u0301", "!", "?", "😀", "\u200d", "x", "yz", "q", "ABC", "<TOOL>"]


def texts(tokenizer, count, seed):
    pick = random.Random(seed)
    scraps = SCRAPS + [token["content"] for token in tokenizer["added_tokens"]] * 3
    made = {"".join(pick.choice(scraps) for _ in range(pick.randint(1, 6))) for _ in range(count)}
    return sorted(made)


def main():
    out = {}
    for seed, (name, tokenizer) in enumerate(CASES.items()):
        made = Tokenizer.from_str(json.dumps(tokenizer))
        answers = []
        for text in texts(tokenizer, 150, seed):
            ids = made.encode(text, add_special_tokens=False).ids
            answers.append({"text": text, "ids": ids, "decoded": made.decode(ids, skip_special_tokens=False)})
        out[name] = {"tokenizer": tokenizer, "answers": answers}
    path = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "added-tokens.json"
    path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print({name: len(case["answers"]) for name, case in out.items()}, path.stat().st_size)


main()
