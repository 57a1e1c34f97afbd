"""A teacher's tokenizer and chat template: what texts are cut with, and what an exported file carries along."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import DistillError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Tokens that end an answer in the chat formats in use, whatever the file names as eos (src/text/tokenizer.ts)
_END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
)


def _token_name(value: Any) -> str | None:
    """tokenizer_config.json names a token plainly or as an object."""
    return value.get("content") if isinstance(value, dict) else value


@dataclass
class TeacherText:
    """The tokenizer as JSON (what an exported file carries) and as a library object (what training uses)."""

    #: tokenizer.json
    tokenizer_json: dict[str, Any]
    #: what we use of tokenizer_config.json
    config: dict[str, Any]
    chat_template: str | None = None
    tokenizer: Tokenizer = field(init=False)

    def __post_init__(self) -> None:
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_str(json.dumps(self.tokenizer_json, ensure_ascii=False))
        except Exception as cause:  # the library raises nothing more special
            raise DistillError("ERR_TOKENIZER_FILE", f"tokenizer: {str(cause)[:200]}") from cause
        # what a fine-tune was saved with (512 tokens a text, or so) would cut ours, which are read whole
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def token_id(self, name: str) -> int | None:
        """name: bos_token, eos_token, unk_token or pad_token"""
        token = _token_name(self.config.get(name))
        return None if token is None else self.tokenizer.token_to_id(token)

    @property
    def add_bos(self) -> bool:
        """The tokenizer's own flag; without one, whether its post-processor puts BOS in front."""
        bos = self.token_id("bos_token")
        if bos is None:
            return False
        flag = self.config.get("add_bos_token")
        return bool(flag) if flag is not None else self.tokenizer.encode("").ids[:1] == [bos]

    @property
    def eos_ids(self) -> list[int]:
        """All ids that end a text or an answer, ascending."""
        eos = self.token_id("eos_token")
        ends = {*self.config.get("eos_token_ids", []), *([] if eos is None else [eos])}
        special = {
            item["content"]: item["id"] for item in self.tokenizer_json.get("added_tokens", []) if item.get("special")
        }
        ends.update(special[name] for name in _END_TOKENS if name in special)
        return sorted(ends)

    def encode(self, text: str, *, special: bool = False, bos: bool | None = None) -> list[int]:
        """The engine's ids. special: parse special tokens written in the text, else they are letters like others.
        bos: in front; None: as the tokenizer's own flag says."""
        self.tokenizer.encode_special_tokens = not special
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        first = self.token_id("bos_token")
        if bos is None:
            bos = self.add_bos and ids[:1] != [first]
        if bos and first is None:
            raise DistillError("ERR_BAD_OPTION", "bos: this tokenizer has no beginning-of-sequence token")
        return [first, *ids] if bos else ids

    def blob(self) -> bytes:
        """What a `.obt` file holds as `tokenizer`, without white space, as the engine itself writes it."""
        parts = {"tokenizer": self.tokenizer_json, "config": self.config}
        return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()

    def chat_template_blob(self) -> bytes | None:
        """What a `.obt` file holds as `chat_template`: the template and the special tokens it may mention."""
        if self.chat_template is None:
            return None
        names = {
            name: _token_name(self.config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        }
        known = {name: token for name, token in names.items() if isinstance(token, str)}
        return json.dumps({"template": self.chat_template, **known}, ensure_ascii=False).encode()
