"""Models from GGUF files: config, float tensors under Hugging Face's names, and the text side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DistillError
from ..model.config import HF_LINEARS, QKV, LlamaConfig
from ..model.rope import rows_for_halves, yarn_magnitude
from .gguf_vocabulary import tokenizer_from_gguf

_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q1_0")

_LINEARS = {
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "w1": "ffn_gate",
    "w2": "ffn_down",
    "w3": "ffn_up",
}


def _bad_source(problem: str, hint: str | None = None) -> DistillError:
    return DistillError("ERR_BAD_SOURCE", problem, hint)


def _q1_0(blocks: np.ndarray) -> np.ndarray:
    """Blocks of 128 columns, 18 bytes: the scale as f16, then bits, least significant first, 1 for +scale."""
    blocks = blocks.reshape(blocks.shape[0], -1, 18)
    scale = blocks[..., :2].copy().view(np.float16).astype(np.float32)
    bits = np.unpackbits(blocks[..., 2:], axis=-1, bitorder="little")
    return (np.where(bits == 1, scale, -scale)).reshape(blocks.shape[0], -1)


def _shortest(value: float) -> float:
    """The shortest decimal that is this f32: 1e-5 and not 0.000009999999747378752."""
    for digits in range(1, 9):
        short = float(f"{value:.{digits}g}")
        if np.float32(short) == np.float32(value):
            return short
    return float(value)


class GgufFile:
    """Raises DistillError ERR_BAD_SOURCE, ERR_TRUNCATED, ERR_UNSUPPORTED_ARCHITECTURE when opened."""

    def __init__(self, path: str) -> None:
        from gguf import GGUFReader

        self.path, self.files = path, [Path(path)]
        try:
            self._reader = GGUFReader(path)
        except (ValueError, KeyError, IndexError, OverflowError, UnicodeDecodeError, MemoryError) as cause:
            problem = f"{path} is not a GGUF file that can be read ({cause})"
            raise _bad_source(problem, "The download may have stopped early; get the file again.") from cause
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        architecture = self.get("general.architecture")
        if architecture not in ("llama", "qwen2", "qwen3"):
            hint = "Llama, Mistral, Qwen2 and Qwen3 can be teachers."
            message = f"{path}: the teacher is of an architecture we do not know: {str(architecture)[:60]}"
            raise DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message, hint)
        if (self.get("split.count") or 1) > 1:
            raise _bad_source(f"{path} is one of several parts", "Join them first: llama-gguf-split --merge FIRST OUT.")
        if not self._tensors:
            raise _bad_source(f"{path} has no tensors: it holds only a vocabulary")
        self.architecture = architecture
        self.config = self._read_config()

    def get(self, key: str) -> Any:
        """A metadata value, or None."""
        found = self._reader.fields.get(key)
        return None if found is None else found.contents()

    def tokenizer(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tokenizer.json, tokenizer config), or None when the file has no vocabulary."""
        return None if self.get("tokenizer.ggml.model") is None else tokenizer_from_gguf(self.get)

    def chat_template(self) -> str | None:
        return self.get("tokenizer.chat_template")

    def _number(self, key: str, fallback: float | None = None) -> float:
        value = self.get(f"{self.architecture}.{key}")
        value = fallback if value is None else value
        if isinstance(value, (int, float)) and math.isfinite(value):
            return value
        raise _bad_source(f"{self.path}: {self.architecture}.{key} must be a number, found {str(value)[:40]}")

    def _read_config(self) -> LlamaConfig:
        heads = int(self._number("attention.head_count"))
        dim = int(self._number("embedding_length"))
        head_dim = int(self._number("attention.key_length", dim // heads if heads else 0))
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._number(key, head_dim) != head_dim:
                message = f"{self.path}: {key} differs from the heads' size {head_dim}"
                raise DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message)
        context = int(self._number("context_length"))
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None:
            raise DistillError("ERR_MISSING_TENSOR", f"{self.path} has no tensor token_embd.weight")
        layers = int(self._number("block_count"))
        every = lambda role: all(f"blk.{i}.{_LINEARS[role]}.bias" in self._tensors for i in range(layers))  # noqa: E731
        return LlamaConfig(
            architecture=self.architecture,
            vocab_size=int(embedding.shape[-1]),
            dim=dim,
            hidden_dim=int(self._number("feed_forward_length")),
            n_layers=layers,
            n_heads=heads,
            n_kv_heads=int(self._number("attention.head_count_kv", heads)),
            head_dim=head_dim,
            context_length=context,
            norm_eps=_shortest(self._number("attention.layer_norm_rms_epsilon")),
            rope_theta=_shortest(self._number("rope.freq_base", 10000)),
            rope_scaling=self._rope_scaling(context),
            tied_head="output.weight" not in self._tensors,
            biases=QKV if self.architecture == "qwen2" else tuple(role for role in _LINEARS if every(role)),
            qk_norm=self.architecture == "qwen3",
            window=self._window(),
        )

    def _window(self) -> int:
        """Mistral comes under the name of llama."""
        window = int(self._number("attention.sliding_window", 0))
        if window != 0 and self.architecture != "llama":
            message = f"{self.path}: {self.architecture} with a sliding window"
            raise DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message)
        return window

    def _rope_scaling(self, context: int) -> dict[str, Any]:
        # 0 and nothing mean that positions stay as they are; a factor without a type is linear
        factor = self._number("rope.scaling.factor", self._number("rope.scale_linear", 1)) or 1
        kind = self.get(f"{self.architecture}.rope.scaling.type") or ("none" if factor == 1 else "linear")
        if "rope_freqs.weight" in self._tensors:
            if kind not in ("none", "linear"):
                raise _bad_source(f"{self.path}: rope_freqs.weight together with RoPE scaling of type {kind}")
            factors = [_shortest(float(value)) for value in self.tensor("rope_freqs.weight").flatten()]
            stretched = [each * factor for each in factors] if kind == "linear" else factors
            return {"type": "factors", "factors": stretched}
        if kind == "none":
            return {"type": "none"}
        if kind == "linear":
            return {"type": "linear", "factor": factor}
        if kind != "yarn":
            raise DistillError("ERR_UNSUPPORTED_ROPE", f"{self.path}: RoPE scaling of type {str(kind)[:40]!r}")
        # llama.cpp multiplies the usual magnitude by attn_factor instead of replacing it
        attention = self._number("rope.scaling.yarn_attn_factor", self._number("rope.scaling.attn_factor", 1))
        return {
            "type": "yarn",
            "factor": factor,
            "original_context": int(self._number("rope.scaling.original_context_length", context)),
            "beta_fast": self._number("rope.scaling.yarn_beta_fast", 32),
            "beta_slow": self._number("rope.scaling.yarn_beta_slow", 1),
            "attention_factor": 0 if attention == 1 else attention * yarn_magnitude(factor),
        }

    def tensor(self, name: str) -> Tensor:
        """float32, as the file has it: rows in GGUF's order."""
        from gguf.quants import dequantize

        found = self._tensors[name]
        kind = found.tensor_type.name
        if kind not in _TYPES:
            hint = f"{', '.join(_TYPES)} can be read."
            message = f"{self.path}: tensor {name} has type {kind}"
            raise DistillError("ERR_UNSUPPORTED_TENSOR_TYPE", message, hint)
        if kind == "Q1_0":
            values = _q1_0(np.asarray(found.data).reshape(-1, found.data.shape[-1]))
        else:
            values = dequantize(found.data, found.tensor_type)
        shape = [int(size) for size in reversed(found.shape)]
        return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(shape)

    def names(self) -> dict[str, str]:
        """GGUF's name of each tensor by Hugging Face's, for this config."""
        names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
        for layer in range(self.config.n_layers):
            ours, theirs = f"model.layers.{layer}", f"blk.{layer}"
            names[f"{ours}.input_layernorm.weight"] = f"{theirs}.attn_norm.weight"
            names[f"{ours}.post_attention_layernorm.weight"] = f"{theirs}.ffn_norm.weight"
            if self.config.qk_norm:
                names[f"{ours}.self_attn.q_norm.weight"] = f"{theirs}.attn_q_norm.weight"
                names[f"{ours}.self_attn.k_norm.weight"] = f"{theirs}.attn_k_norm.weight"
            for role, name in _LINEARS.items():
                names[f"{ours}.{HF_LINEARS[role]}.weight"] = f"{theirs}.{name}.weight"
                if role in self.config.biases:
                    names[f"{ours}.{HF_LINEARS[role]}.bias"] = f"{theirs}.{name}.bias"
        if not self.config.tied_head:
            names["lm_head.weight"] = "output.weight"
        return names

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face's name, float32 tensor) of each.

        Raises DistillError ERR_MISSING_TENSOR, ERR_BAD_SOURCE, ERR_UNSUPPORTED_TENSOR_TYPE.
        """
        names = self.names()
        for theirs in names.values():
            if theirs not in self._tensors:
                raise DistillError("ERR_MISSING_TENSOR", f"{self.path} has no tensor {theirs}")
        left = sorted(set(self._tensors) - set(names.values()) - {"rope_freqs.weight"})
        if left:
            hint = "It is probably of a kind that only looks like a Llama."
            raise _bad_source(
                f"{self.path} has a tensor {left[0]}, which a model of its architecture does not use", hint
            )
        for ours, theirs in names.items():
            value = self.tensor(theirs)
            heads = {"attn_q": self.config.n_heads, "attn_k": self.config.n_kv_heads}.get(theirs.split(".")[-2])
            if heads is not None and self.architecture == "llama":
                value = rows_for_halves(value, heads)
            yield ours, value
