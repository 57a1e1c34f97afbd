"""`vocab.json` and `merges.txt`, as GPT-2, OPT and Qwen2 have them, in the form of a tokenizer.json
(src/text/byte-level-files.ts)."""

from __future__ import annotations

from typing import Any

from ..errors import DistillError
from .gguf_vocabulary import byte_level_tokenizer

#: what cuts a text into words, by tokenizer_config.json's `tokenizer_class`
_PRE = {
    "GPT2Tokenizer": "gpt-2",
    "GPT2TokenizerFast": "gpt-2",
    "Qwen2Tokenizer": "qwen2",
    "Qwen2TokenizerFast": "qwen2",
}


def _broken(problem: str) -> DistillError:
    return DistillError("ERR_TOKENIZER_FILE", f"tokenizer: {problem}")


def _special_names(config: dict[str, Any]) -> set[str]:
    """The texts that a config calls special."""
    more = config.get("additional_special_tokens") or []
    values = [value for name, value in config.items() if name.endswith("_token")] + list(more)
    texts = [value.get("content") if isinstance(value, dict) else value for value in values]
    return {text for text in texts if isinstance(text, str)}


def tokenizer_from_byte_level_files(vocab: Any, merges: str, config: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json. vocab: of vocab.json; merges: the text of merges.txt; config: of tokenizer_config.json.

    Raises DistillError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER.
    """
    name = config.get("tokenizer_class") or "GPT2Tokenizer"
    if name not in _PRE or config.get("add_prefix_space") is True:
        what = "add_prefix_space" if name in _PRE else f"a tokenizer_class {str(name)[:60]!r}"
        raise DistillError("ERR_UNSUPPORTED_TOKENIZER", f"tokenizer: vocab.json with {what} is not supported")
    if not isinstance(vocab, dict) or not all(type(token) is int and token >= 0 for token in vocab.values()):
        raise _broken("vocab.json does not give every token an id")
    pairs = [line for line in merges.splitlines() if line and not line.startswith("#version")]
    wrong = next((pair for pair in pairs if len(pair.split(" ")) != 2), None)
    if wrong is not None:
        raise _broken(f"merges.txt has a line {wrong[:60]!r}, which is not a pair of tokens")
    special = _special_names(config)
    added = {token: (text, True) for text, token in vocab.items() if text in special}
    decoder = config.get("added_tokens_decoder") or {}
    for key, value in decoder.items():
        if not key.isdigit() or not isinstance(value, dict) or not isinstance(value.get("content"), str):
            raise _broken(f"added_tokens_decoder has an entry {key[:60]!r} that is no token")
        added[int(key)] = (value["content"], value.get("special") is True)
    return byte_level_tokenizer(_PRE[name], vocab, pairs, added)
