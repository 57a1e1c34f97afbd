"""Llama written out in NumPy, in float64 and straight from its definition: what goldens are computed with.

It shares no code with the engine or with distill/, so that an error in either cannot be in the golden as well. Weights
come from llama2.c's files or from a seed and have Hugging Face's names; queries and keys are rotated in halves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: the seven linears of a layer, within `model.layers.N.`, in the order in which a llama2.c file has them
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.down_proj",
    "mlp.up_proj",
)

#: what every llama2.c model was trained with
NORM_EPS = 1e-5
ROPE_THETA = 10000.0

#: a linear's name without `.weight`, and its input [T, in] -> its output [T, out]
Linear = Callable[[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shape:
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    context_length: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    def linear(self, name: str) -> tuple[int, int]:
        """(rows, columns) of one of LINEARS."""
        kv = self.n_kv_heads * self.head_dim
        return {
            "self_attn.k_proj": (kv, self.dim),
            "self_attn.v_proj": (kv, self.dim),
            "mlp.gate_proj": (self.hidden_dim, self.dim),
            "mlp.up_proj": (self.hidden_dim, self.dim),
            "mlp.down_proj": (self.dim, self.hidden_dim),
        }.get(name, (self.dim, self.dim))


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head from the order x0 y0 x1 y1 … (llama2.c rotates neighbours) to x0 x1 … y0 y1 …"""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def read_llama2c(path: Path) -> tuple[Shape, dict[str, np.ndarray]]:
    """A llama2.c file whose head is its embedding (all that goldens are made of), as float32 by Hugging Face's names."""
    data = path.read_bytes()
    shape = Shape(*struct.unpack_from("<7i", data))
    values = np.frombuffer(data, "<f4", offset=28)
    taken = 0

    def take(*size: int) -> np.ndarray:
        nonlocal taken
        taken += int(np.prod(size))
        return values[taken - int(np.prod(size)) : taken].reshape(size).copy()

    tensors = {"model.embed_tokens.weight": take(shape.vocab_size, shape.dim)}

    def take_layers(name: str, *size: int) -> None:
        for layer in range(shape.n_layers):
            tensors[f"model.layers.{layer}.{name}.weight"] = take(*size)

    take_layers("input_layernorm", shape.dim)
    for name in LINEARS[:4]:
        take_layers(name, *shape.linear(name))
    take_layers("post_attention_layernorm", shape.dim)
    for name in LINEARS[4:]:
        take_layers(name, *shape.linear(name))
    tensors["model.norm.weight"] = take(shape.dim)
    if taken + shape.context_length * shape.head_dim != len(values):
        raise ValueError(f"{path} is not a llama2.c file with a tied head")
    for name in tensors:
        heads = {"q_proj": shape.n_heads, "k_proj": shape.n_kv_heads}.get(name.split(".")[-2])
        if heads is not None:
            tensors[name] = _halves(tensors[name], heads)
    return shape, tensors


def _rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + NORM_EPS) * weight


def _rotate(x: np.ndarray) -> np.ndarray:
    """x: [T, heads, head_dim]; row t is at position t."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * ROPE_THETA ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), -1)


def _attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q: [T, heads, head_dim]; k, v: [T, kv_heads, head_dim] -> [T, dim]."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    chance = np.exp(scores - scores.max(-1, keepdims=True))
    chance /= chance.sum(-1, keepdims=True)
    return np.einsum("hts,shd->thd", chance, v).reshape(len(q), -1)


def logits(
    shape: Shape, tensors: dict[str, np.ndarray], ids: list[int], linear: Linear | None = None, last: bool = False
) -> np.ndarray:
    """float64 [T, vocabulary] of a sequence; linear: how its linears multiply (default: as matrices of `tensors`).

    last: only of the last position, [1, vocabulary]. The head is `lm_head.weight`, or the embedding without one.
    """
    linear = linear or (lambda name, x: x @ tensors[f"{name}.weight"].T.astype(np.float64))
    x = tensors["model.embed_tokens.weight"][ids].astype(np.float64)
    for layer in range(shape.n_layers):
        at = f"model.layers.{layer}"
        a = _rms_norm(x, tensors[f"{at}.input_layernorm.weight"])
        q, k, v = (
            linear(f"{at}.self_attn.{name}", a).reshape(len(ids), -1, shape.head_dim)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        x = x + linear(f"{at}.self_attn.o_proj", _attend(_rotate(q), _rotate(k), v))
        a = _rms_norm(x, tensors[f"{at}.post_attention_layernorm.weight"])
        gate = linear(f"{at}.mlp.gate_proj", a)
        x = x + linear(f"{at}.mlp.down_proj", gate / (1 + np.exp(-gate)) * linear(f"{at}.mlp.up_proj", a))
    x = _rms_norm(x[-1:] if last else x, tensors["model.norm.weight"])
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    return x @ head.T.astype(np.float64)
