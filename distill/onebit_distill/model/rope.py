"""Rotary position embedding: the same frequencies as the engine's (binding/model/rope.cpp), computed in double precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import LlamaConfig


def _llama3(frequency: Tensor, scaling: dict) -> Tensor:
    """Low frequencies divided by the factor, high ones kept, those between interpolated (arXiv 2407.21783)."""
    wavelength = 2 * math.pi / frequency
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = ((scaling["original_context"] / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - share) * frequency / scaling["factor"] + share * frequency


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """What YaRN multiplies cosines and sines by: 0.1 scale ln(factor) + 1, and 1 where nothing is stretched, as
    transformers and llama.cpp have it."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1


def _yarn(frequency: Tensor, config: LlamaConfig) -> tuple[Tensor, float]:
    """arXiv 2309.00071, section 3.2: a ramp between kept and divided frequencies, and a magnitude."""
    scaling, dims = config.rope_scaling, config.rope_dims

    def pair_that_turns(turns: float) -> float:
        original = scaling["original_context"] / (turns * 2 * math.pi)
        return dims * math.log(original) / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair_that_turns(scaling["beta_fast"])), 0)
    high = min(math.ceil(pair_that_turns(scaling["beta_slow"])), dims - 1)
    if high == low:
        high += 0.001
    ramp = ((torch.arange(dims // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    magnitude = scaling["attention_factor"] or yarn_magnitude(scaling["factor"])
    return frequency / scaling["factor"] * ramp + frequency * (1 - ramp), magnitude


def rope_frequencies(config: LlamaConfig) -> tuple[Tensor, float]:
    """Radians per position of each pair, float64 [rope_dims/2]; and what cos and sin are multiplied by."""
    exponent = torch.arange(0, config.rope_dims, 2, dtype=torch.float64) / config.rope_dims
    frequency = 1 / torch.tensor(config.rope_theta, dtype=torch.float64) ** exponent
    scaling = config.rope_scaling
    if scaling["type"] == "linear":
        return frequency / scaling["factor"], 1.0
    if scaling["type"] == "factors":
        return frequency / torch.tensor(scaling["factors"], dtype=torch.float64), 1.0
    if scaling["type"] == "llama3":
        return _llama3(frequency, scaling), 1.0
    if scaling["type"] == "yarn":
        return _yarn(frequency, config)
    return frequency, 1.0


def rope_table(config: LlamaConfig, positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [positions, rope_dims/2]; [positions, 0] where positions are learned."""
    if config.positions == "learned":
        return torch.zeros(positions, 0), torch.zeros(positions, 0)
    frequency, magnitude = rope_frequencies(config)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    return (angles.cos() * magnitude).float(), (angles.sin() * magnitude).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates pairs (i, i + dims/2) of the first `dims` elements and leaves the others.

    x: [B, heads, T, head_dim]; cos, sin: [T, dims/2] or [B, 1, T, dims/2].
    """
    half = cos.shape[-1]
    if half == 0:
        return x
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def rows_for_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of q or k [heads * head_dim, dim] from the order for rotating neighbours (llama GGUF, llama2.c) to ours."""
    if rows.shape[0] % (2 * heads) != 0:
        return rows  # of a wrong shape, which the caller reports
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()
