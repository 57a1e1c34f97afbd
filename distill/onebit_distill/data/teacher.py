"""The model that a student learns from, with everything a student keeps of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DistillError
from ..formats.gguf_file import GgufFile
from ..formats.hf_folder import HfFolder
from ..formats.llama2c_file import Llama2cFile
from ..model.config import LlamaConfig
from ..model.llama import Llama
from ..model.rope import rope_table
from ..system.atomic_file import file_error
from .teacher_text import TeacherText

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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


def file_identity(path: Path) -> dict[str, Any]:
    """Name, bytes and sha256 of a file. Raises DistillError as `file_error`."""
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
        hint = "It is probably of a kind that only looks like the one that it names."
        raise DistillError("ERR_BAD_SOURCE", f"The source has a tensor {extra[0]}, which its config does not use", hint)
    placed = {name: tensors[name].to(device=device, dtype=dtype) for name in expected}
    model.load_state_dict(placed, assign=True)
    cos, sin = rope_table(config, config.context_length)
    model.rope_cos, model.rope_sin = cos.to(device), sin.to(device)
    return model.requires_grad_(False).eval()


def _open_source(source: Path, tokenizer: str | os.PathLike | None):
    """The reader of a source: config, files, tensors(), tokenizer(), chat_template(); and the format's name."""
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
    weights: bool = True,
) -> Teacher:
    """A Hugging Face folder (safetensors or PyTorch files, sharded or not), a GGUF file or a llama2.c file, whose
    tokenizer is another file: `tokenizer`, or the tokenizer.bin beside it. Without `weights` the model has only shapes
    (torch's device "meta"): enough for whoever leaves the computing to the engine.

    Raises DistillError ERR_FILE_NOT_FOUND, ERR_UNKNOWN_FORMAT, ERR_UNSUPPORTED_*, ERR_TOKENIZER_FILE,
    ERR_TOKENIZER_FIT, and those of `build_llama`.
    """
    source = Path(path)
    reader, form = _open_source(source, tokenizer)
    config = reader.config
    if weights:
        model = build_llama(config, dict(reader.tensors()), dtype, device)
    else:
        with torch.device("meta"):
            model = Llama(config)
    parts = reader.tokenizer()
    text = None if parts is None else TeacherText(*parts, chat_template=reader.chat_template())
    # ids may have gaps: the number of tokens does not say how far they go
    last = -1 if text is None else max(text.tokenizer.get_vocab().values(), default=-1)
    if last >= config.vocab_size:
        message = f"{source}: the tokenizer has a token of id {last}, the model has {config.vocab_size} tokens"
        raise DistillError("ERR_TOKENIZER_FIT", message, "The tokenizer belongs to another model.")
    return Teacher(model, text, form, str(source), [file_identity(file) for file in reader.files])
