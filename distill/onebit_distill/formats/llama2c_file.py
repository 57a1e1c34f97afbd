"""llama2.c's first `.bin` format (seven integers, then float32 tensors) and its tokenizer.bin, as src/import/llama2c.ts
and src/text/llama2c-vocabulary.ts read them. The smallest teachers in the open have this form."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DistillError
from ..model.config import HF_LINEARS, ROLES, LlamaConfig
from ..model.rope import rows_for_halves
from ..system.atomic_file import file_error
from .gguf_vocabulary import tokenizer_from_gguf

_HEADER = struct.Struct("<7i")
#: fixed ids (run.c, encode): unknown, BOS, EOS, then the 256 bytes
_UNKNOWN, _BOS, _EOS = 0, 1, 2
_NORMAL_TYPE, _UNKNOWN_TYPE, _CONTROL_TYPE, _BYTE_TYPE = 1, 2, 3, 6


def _unknown(path: Path) -> DistillError:
    hint = "Give a Hugging Face model folder, a .gguf file or a llama2.c .bin file."
    return DistillError("ERR_UNKNOWN_FORMAT", f"{path} is not a model in a known format", hint)


def _broken(path: Path, problem: str) -> DistillError:
    return DistillError("ERR_TOKENIZER_FILE", f"{path}: {problem}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause


def _config(path: Path, data: bytes) -> LlamaConfig:
    if len(data) < _HEADER.size:
        raise _unknown(path)
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocabulary, context = _HEADER.unpack_from(data)
    if n_heads < 1 or dim % (2 * n_heads) != 0:
        raise _unknown(path)
    try:
        return LlamaConfig(
            vocab_size=abs(vocabulary),
            dim=dim,
            hidden_dim=hidden_dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=dim // n_heads,
            context_length=context,
            tied_head=vocabulary > 0,  # how the format says that the head is a matrix of its own
        )
    except (DistillError, ZeroDivisionError) as cause:
        raise _unknown(path) from cause


def _file_order(config: LlamaConfig) -> Iterator[tuple[str | None, tuple[int, ...]]]:
    """Our name and shape of every tensor in the file's order; without a name: not used."""
    layers = [f"model.layers.{layer}" for layer in range(config.n_layers)]
    linears = lambda role: [(f"{at}.{HF_LINEARS[role]}.weight", config.linear_shape(role)) for at in layers]  # noqa: E731
    yield "model.embed_tokens.weight", (config.vocab_size, config.dim)
    yield from ((f"{at}.input_layernorm.weight", (config.dim,)) for at in layers)
    for role in ROLES[:4]:
        yield from linears(role)
    yield from ((f"{at}.post_attention_layernorm.weight", (config.dim,)) for at in layers)
    for role in ROLES[4:]:
        yield from linears(role)
    yield "model.norm.weight", (config.dim,)
    yield None, (config.context_length, config.head_dim)  # tables of cosines and sines
    if not config.tied_head:
        yield "lm_head.weight", (config.vocab_size, config.dim)


class Llama2cFile:
    """Raises DistillError ERR_UNKNOWN_FORMAT when the size is not what the seven integers make.

    tokenizer: its file; None: `tokenizer.bin` beside the model, if it is there.
    """

    def __init__(self, path: str | os.PathLike, tokenizer: str | os.PathLike | None = None) -> None:
        self.path = Path(path)
        self.files = [self.path]
        self._data = _read(self.path)
        self.config = _config(self.path, self._data)
        numbers = sum(math.prod(shape) for _, shape in _file_order(self.config))
        if len(self._data) != _HEADER.size + 4 * numbers:
            raise _unknown(self.path)
        beside = self.path.with_name("tokenizer.bin")
        self.tokenizer_path = Path(tokenizer) if tokenizer else beside if beside.exists() else None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face's name, float32 tensor) of each."""
        values = np.frombuffer(self._data, "<f4", offset=_HEADER.size)
        at = 0
        for name, shape in _file_order(self.config):
            count = math.prod(shape)
            if name is not None:
                tensor = torch.from_numpy(values[at : at + count].astype(np.float32)).reshape(shape)
                heads = {"q_proj": self.config.n_heads, "k_proj": self.config.n_kv_heads}.get(name.split(".")[-2])
                yield name, tensor if heads is None else rows_for_halves(tensor, heads)
            at += count

    def tokenizer(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """tokenizer.json and what we use of tokenizer_config.json. Raises DistillError ERR_TOKENIZER_FILE."""
        if self.tokenizer_path is None:
            return None
        return read_tokenizer(self.tokenizer_path, self.config.vocab_size)

    def chat_template(self) -> str | None:
        return None


def _pieces(path: Path, data: bytes, size: int) -> Iterator[tuple[str, float]]:
    at = 4  # the longest token's length
    for token in range(size):
        if at + 8 > len(data):
            raise _broken(path, f"ends at byte {len(data)}, in token {token} of {size}: it belongs to another model")
        score, length = struct.unpack_from("<fi", data, at)
        at += 8
        if length < 0 or at + length > len(data) or not math.isfinite(score):
            raise _broken(path, f"token {token} has the score {score} and {length} bytes")
        try:
            yield data[at : at + length].decode("utf-8"), score
        except UnicodeDecodeError as cause:
            raise _broken(path, f"token {token} is not UTF-8") from cause
        at += length
    if at != len(data):
        raise _broken(path, f"{len(data) - at} bytes are left after {size} tokens: it belongs to another model")


def read_tokenizer(path: Path, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file does not say how many tokens it has: the model does. Its names were made for printing, with a space for
    the space sign and line breaks around BOS and EOS. Raises DistillError ERR_TOKENIZER_FILE."""
    names, scores, types = [], [], []
    for token, (name, score) in enumerate(_pieces(path, _read(path), size)):
        control = token in (_BOS, _EOS)
        names.append(name.strip() if control else name.replace(" ", "▁"))
        scores.append(score)
        is_byte = len(name) == 6 and name.startswith("<0x") and name.endswith(">")
        kind = _UNKNOWN_TYPE if token == _UNKNOWN else _CONTROL_TYPE if control else _NORMAL_TYPE
        types.append(_BYTE_TYPE if is_byte else kind)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
    }
    tokenizer, config = tokenizer_from_gguf(metadata.get)
    # These models were trained on texts with BOS between them and never saw EOS (llama2.c: tinystories.py, run.c).
    return tokenizer, {**config, "eos_token": config["bos_token"]}
