"""A GGUF file's `tokenizer.*` metadata as a Hugging Face tokenizer.json, as src/text/gguf-vocabulary.ts reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DistillError

# tokenizer.ggml.token_type
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

# openai/gpt-2, src/encoder.py
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# the same where marks belong to words
_MARKED_WORDS = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
_MARKED_REST = _REST.replace(r"\p{L}", r"\p{L}\p{M}")

#: tokenizer.ggml.pre -> expressions, whole words first, NFC, BOS by default (llama.cpp, src/llama-vocab.cpp)
_PRE: dict[str, tuple[list[str], bool, bool, bool]] = {
    "gpt-2": ([_GPT2], False, False, False),
    "olmo": ([_GPT2], False, True, False),
    "smollm": ([r"\p{N}", _GPT2], False, False, False),
    "qwen2": ([f"{_CONTRACTIONS}|{_WORDS}|\\p{{N}}|{_REST}"], False, True, False),
    "qwen35": ([f"{_CONTRACTIONS}|{_MARKED_WORDS}|\\p{{N}}|{_MARKED_REST}"], False, True, False),
    "llama-bpe": ([f"{_CONTRACTIONS}|{_WORDS}|\\p{{N}}{{1,3}}|{_REST}"], True, False, True),
}
#: other names of the same thing, which converters have used
_PRE |= {name: _PRE["llama-bpe"] for name in ("llama3", "llama-v3", "falcon3", "falcon-h1")}

#: general.architecture of files that may leave the pre-tokenizer out
_LLAMA3_UNSAID = ("bitnet-b1.58", "bitnet-25")

Get = Callable[[str], Any]


def _unsupported(what: str) -> DistillError:
    hint = f"Byte-level BPE ({', '.join(_PRE)}) and SentencePiece vocabularies are supported."
    return DistillError("ERR_UNSUPPORTED_TOKENIZER", f"tokenizer: {what} is not supported", hint)


def _broken(problem: str) -> DistillError:
    return DistillError("ERR_TOKENIZER_FILE", f"tokenizer: {problem}")


def _added(token_id: int, content: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": token_id, "content": content, **flags}


def _bpe(vocab: dict[str, int], merges: list[str] | list[list[str]], **fields: Any) -> dict[str, Any]:
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"type": "BPE", **plain, **flags, **fields, "vocab": vocab, "merges": merges}


def _tokenizer(**parts: Any) -> dict[str, Any]:
    return {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, **parts}


class _Metadata:
    def __init__(self, get: Get) -> None:
        self.get = get

    def strings(self, key: str) -> list[str]:
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _broken(f"{key} in the GGUF file is not an array of strings")
        return value

    def numbers(self, key: str, length: int) -> list[float] | None:
        value = self.get(key)
        if value is not None and (not isinstance(value, list) or len(value) != length):
            raise _broken(f"{key} in the GGUF file is not as long as the vocabulary")
        return value

    def token_id(self, key: str, limit: int) -> int | None:
        """Some files say "none" with 2^32 - 1."""
        value = self.get(key)
        if value is None or value in (0xFFFFFFFF, -1):
            return None
        if not isinstance(value, int) or not 0 <= value < limit:
            raise _broken(f"{key} in the GGUF file is not a token id below {limit} (it is {value!r})")
        return value

    def ends(self, limit: int) -> list[int]:
        """End of turn and end of message, which some files name besides end of sequence."""
        found = [self.token_id(f"tokenizer.ggml.{name}_token_id", limit) for name in ("eot", "eom")]
        return [token for token in found if token is not None]


def byte_level_tokenizer(
    pre: str, vocab: dict[str, int], merges: list[str], added: dict[int, tuple[str, bool]]
) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE. pre: one of _PRE; added: text, and whether it is special, by id."""
    splits, ignore_merges, nfc, _ = _PRE[pre]
    # The library gives added tokens that are not in the vocabulary ids of its own, so they are in it too.
    vocab = {**{text: token_id for token_id, (text, _) in added.items()}, **vocab}
    steps = [{"type": "Split", "pattern": {"Regex": it}, "behavior": "Isolated", "invert": False} for it in splits]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _tokenizer(
        added_tokens=[_added(token_id, text, special) for token_id, (text, special) in sorted(added.items())],
        normalizer={"type": "NFC"} if nfc else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [*steps, to_bytes]},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        model=_bpe(vocab, merges, ignore_merges=ignore_merges),
    )


def _byte_level(file: _Metadata) -> tuple[dict[str, Any], dict[str, Any]]:
    names = file.strings("tokenizer.ggml.tokens")
    types = file.numbers("tokenizer.ggml.token_type", len(names))
    pre = file.get("tokenizer.ggml.pre")
    # the makers' own files of BitNet b1.58, whose vocabulary is Llama 3's, do not say it
    pre = "llama-bpe" if pre is None and file.get("general.architecture") in _LLAMA3_UNSAID else pre
    if pre not in _PRE:
        raise _unsupported(f"the pre-tokenizer {str(pre)[:60]!r}")
    added: dict[int, tuple[str, bool]] = {}
    vocab: dict[str, int] = {}
    for token_id, content in enumerate(names):
        kind = types[token_id] if types else _NORMAL
        if kind in (_CONTROL, _UNKNOWN, _USER_DEFINED):
            added[token_id] = (content, kind != _USER_DEFINED)
        vocab.setdefault(content, token_id)
    tokenizer = byte_level_tokenizer(pre, vocab, file.strings("tokenizer.ggml.merges"), added)
    config: dict[str, Any] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = file.token_id(f"tokenizer.ggml.{key}_token_id", len(names))
        config[f"{name}_token"] = None if token_id is None else names[token_id]
    flag = file.get("tokenizer.ggml.add_bos_token")
    return tokenizer, {
        **config,
        "add_bos_token": _PRE[pre][3] if flag is None else flag,
        "eos_token_ids": file.ends(len(names)),
    }


def _merges_by_score(names: list[str], scores: list[float], types: list[int]) -> list[list[str]]:
    """All ways to build each piece, the highest score first: SentencePiece's order, as Hugging Face converts it."""
    vocab: dict[str, int] = {}
    for token_id, piece in enumerate(names):
        if types[token_id] == _NORMAL:
            vocab.setdefault(piece, token_id)
    merges: list[tuple[float, int, int, str, str]] = []
    for piece, token_id in vocab.items():
        for cut in range(1, len(piece)):
            left, right = vocab.get(piece[:cut]), vocab.get(piece[cut:])
            if left is not None and right is not None:
                merges.append((-scores[token_id], left, right, piece[:cut], piece[cut:]))
    merges.sort(key=lambda merge: merge[:3])
    return [[left, right] for _, _, _, left, right in merges]


def _spaces(remove_extra: bool, prefix: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if remove_extra:
        steps = [
            {"type": "Replace", "pattern": {"Regex": r"\A +"}, "content": ""},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Replace", "pattern": {"Regex": r" \z"}, "content": ""},
        ]
    if prefix:
        steps.append({"type": "Prepend", "prepend": "▁"})
    return {
        "type": "Sequence",
        "normalizers": [*steps, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
    }


def _sentencepiece(file: _Metadata) -> tuple[dict[str, Any], dict[str, Any]]:
    names = file.strings("tokenizer.ggml.tokens")
    scores = file.numbers("tokenizer.ggml.scores", len(names))
    types = file.numbers("tokenizer.ggml.token_type", len(names))
    if scores is None or types is None:
        raise _broken("the GGUF file has no tokenizer.ggml.scores or no tokenizer.ggml.token_type")

    def flag(key: str, fallback: bool) -> bool:
        value = file.get(f"tokenizer.ggml.{key}")
        return fallback if value is None else value

    def name(key: str, fallback: int | None) -> str | None:
        token_id = file.token_id(f"tokenizer.ggml.{key}_token_id", len(names))
        if token_id is None and fallback is not None and fallback < len(names) and types[fallback] == _CONTROL:
            token_id = fallback
        return None if token_id is None else names[token_id]

    vocab: dict[str, int] = {}
    for token_id, piece in enumerate(names):
        vocab.setdefault(piece, token_id)
    unknown = next((names[token_id] for token_id, kind in enumerate(types) if kind == _UNKNOWN), None)
    prefix = flag("add_space_prefix", True)
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    tokenizer = _tokenizer(
        added_tokens=[
            _added(
                token_id,
                names[token_id].replace("▁", " ") if kind == _USER_DEFINED else names[token_id],
                kind != _USER_DEFINED,
            )
            for token_id, kind in enumerate(types)
            if kind in (_CONTROL, _UNKNOWN, _USER_DEFINED)
        ],
        normalizer=_spaces(flag("remove_extra_whitespaces", False), prefix),
        pre_tokenizer=None,
        decoder={
            "type": "Sequence",
            "decoders": [*decoders, *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else [])],
        },
        model=_bpe(
            vocab,
            _merges_by_score(names, scores, types),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=all(f"<0x{byte:02X}>" in vocab for byte in range(256)),
        ),
    )
    # llama.cpp's defaults for this kind of vocabulary: BOS 1, EOS 2, BOS and the prefix added
    config = {
        "bos_token": name("bos", 1),
        "eos_token": name("eos", 2),
        "unk_token": unknown,
        "add_bos_token": flag("add_bos_token", True),
        "eos_token_ids": file.ends(len(names)),
    }
    return tokenizer, config


def tokenizer_from_gguf(get: Get) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json and what we use of tokenizer_config.json; `get` gives a metadata value by key, or None.

    Raises DistillError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER.
    """
    model = get("tokenizer.ggml.model")
    if model == "gpt2":
        return _byte_level(_Metadata(get))
    if model == "llama":
        return _sentencepiece(_Metadata(get))
    if model is None:
        raise _broken("the GGUF file has no tokenizer.ggml.model")
    raise _unsupported(f"a GGUF vocabulary of model {str(model)[:60]!r}")
