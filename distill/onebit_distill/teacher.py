"""The model that a student learns from, with everything a student keeps of it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .atomic_file import file_error
from .config import LlamaConfig
from .errors import DistillError
from .gguf_file import GgufFile
from .hf_folder import HfFolder
from .llama import Llama
from .llama2c_file import Llama2cFile
from .rope import rope_table

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
        """What a `.obt` file holds as `tokenizer`."""
        return json.dumps({"tokenizer": self.tokenizer_json, "config": self.config}, ensure_ascii=False).encode()

    def chat_template_blob(self) -> bytes | None:
        """What a `.obt` file holds as `chat_template`: the template and the special tokens it may mention."""
        if self.chat_template is None:
            return None
        names = {
            name: _token_name(self.config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        }
        known = {name: token for name, token in names.items() if isinstance(token, str)}
        return json.dumps({"template": self.chat_template, **known}, ensure_ascii=False).encode()


@dataclass
class Teacher:
    model: Llama
    #: None: the source has no tokenizer; the model works with token ids only
    text: TeacherText | None
    #: huggingface | gguf | llama2c
    format: str
    #: what was given to `load_teacher`
    source: str
    #: name, bytes and sha256 of each weight file
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> LlamaConfig:
        return self.model.config

    @property
    def sha256(self) -> str:
        """Of the weights: the file's, or of the sorted list of files' for several."""
        sums = sorted(file["sha256"] for file in self.files)
        return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()

    def _text(self) -> TeacherText:
        if self.text is None:
            hint = "Put a tokenizer.json beside the weights."
            raise DistillError("ERR_NO_TOKENIZER", f"{self.source} has no tokenizer", hint)
        return self.text

    @property
    def tokenizer(self) -> Tokenizer:
        return self._text().tokenizer

    @property
    def chat_template(self) -> str | None:
        return None if self.text is None else self.text.chat_template

    @property
    def bos_id(self) -> int | None:
        return self._text().token_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        return self._text().token_id("eos_token")

    @property
    def eos_ids(self) -> list[int]:
        return self._text().eos_ids

    @property
    def add_bos(self) -> bool:
        return self._text().add_bos

    def encode(self, text: str, *, special: bool = False, bos: bool | None = None) -> list[int]:
        """See TeacherText.encode; raises DistillError ERR_NO_TOKENIZER."""
        return self._text().encode(text, special=special, bos=bos)


def _hash(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause


def build_llama(config: LlamaConfig, tensors: dict[str, Tensor], dtype: torch.dtype, device: str) -> Llama:
    """A dense model of these tensors, checked: all there, of the right shape, finite, and none besides.

    Raises DistillError ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_NOT_FINITE, ERR_BAD_SOURCE.
    """
    with torch.device("meta"):
        model = Llama(config)
    expected = model.state_dict()
    for name, wanted in expected.items():
        found = tensors.get(name)
        if found is None:
            raise DistillError("ERR_MISSING_TENSOR", f"The source has no tensor {name}")
        if found.shape != wanted.shape:
            message = f"Tensor {name} has the shape {list(found.shape)}, it should be {list(wanted.shape)}"
            raise DistillError("ERR_TENSOR_SHAPE", message)
        if not found.is_floating_point():
            message = f"Tensor {name} has type {found.dtype}; floats are needed"
            raise DistillError("ERR_UNSUPPORTED_TENSOR_TYPE", message, "Give the original, unquantised model.")
        if not torch.isfinite(found).all():
            raise DistillError("ERR_NOT_FINITE", f"Tensor {name} has NaN or infinite values: the source is damaged")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        hint = "It is probably of a kind that only looks like a Llama."
        raise DistillError("ERR_BAD_SOURCE", f"The source has a tensor {extra[0]}, which its config does not use", hint)
    placed = {name: tensors[name].to(device=device, dtype=dtype) for name in expected}
    model.load_state_dict(placed, assign=True)
    cos, sin = rope_table(config, config.context_length)
    model.rope_cos, model.rope_sin = cos.to(device), sin.to(device)
    return model.requires_grad_(False).eval()


def _open_source(source: Path, tokenizer: str | os.PathLike | None):
    """The reader of a source: config, tensors() or state(), tokenizer(), chat_template(); and the format's name."""
    if not source.exists():
        raise DistillError("ERR_FILE_NOT_FOUND", f"{source}: no such file or folder")
    if tokenizer is not None and source.suffix != ".bin":
        message = f"{source} brings its own tokenizer"
        raise DistillError("ERR_BAD_OPTION", message, "A tokenizer apart is for llama2.c's .bin files.")
    if source.is_dir():
        return HfFolder(source), "huggingface"
    if source.suffix == ".bin":
        return Llama2cFile(source, tokenizer), "llama2c"
    with open(source, "rb") as file:
        if file.read(4) != b"GGUF":
            hint = "Give a Hugging Face model folder, a .gguf file or a llama2.c .bin file."
            raise DistillError("ERR_UNKNOWN_FORMAT", f"{source} is not a GGUF file", hint)
    return GgufFile(str(source)), "gguf"


def load_teacher(
    path: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    tokenizer: str | os.PathLike | None = None,
) -> Teacher:
    """A Hugging Face folder (safetensors or PyTorch files, sharded or not), a GGUF file or a llama2.c file, whose
    tokenizer is another file: `tokenizer`, or the tokenizer.bin beside it.

    Raises DistillError ERR_FILE_NOT_FOUND, ERR_UNKNOWN_FORMAT, ERR_UNSUPPORTED_*, ERR_TOKENIZER_FILE,
    ERR_TOKENIZER_FIT, and those of `build_llama`.
    """
    source = Path(path)
    reader, form = _open_source(source, tokenizer)
    if isinstance(reader, HfFolder):
        config, tensors = reader.state()
        files = reader.files
    else:
        config, tensors, files = reader.config, dict(reader.tensors()), [source]
    model = build_llama(config, tensors, dtype, device)
    parts = reader.tokenizer()
    text = None if parts is None else TeacherText(*parts, chat_template=reader.chat_template())
    # ids may have gaps: the number of tokens does not say how far they go
    last = -1 if text is None else max(text.tokenizer.get_vocab().values(), default=-1)
    if last >= config.vocab_size:
        message = f"{source}: the tokenizer has a token of id {last}, the model has {config.vocab_size} tokens"
        raise DistillError("ERR_TOKENIZER_FIT", message, "The tokenizer belongs to another model.")
    return Teacher(model, text, form, str(source), [_hash(file) for file in files])
