"""How GGUF files store numbers: what the `gguf` package decodes, and the types of 1-bit and ternary models besides.

Layouts of the latter: llama.cpp's ggml-common.h (Q1_0, Q2_0), PrismML's llama.cpp (Q2_0 of 128, PQ2_0, PTQ1_0),
microsoft/BitNet (I2_S).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StoredType:
    name: str
    #: weights of a block, and its bytes
    weights: int
    bytes: int
    #: blocks uint8 [n, bytes] -> float32 [n, weights]
    decode: Callable[[np.ndarray], np.ndarray]
    #: bytes behind the last block
    tail: int = 0

    def size(self, count: int) -> int:
        """Bytes of a tensor of so many weights; -1 when they are no whole blocks."""
        return count // self.weights * self.bytes + self.tail if count % self.weights == 0 else -1


def _half(pair: np.ndarray) -> np.ndarray:
    """float32 [n, 1] of f16 in uint8 [n, 2]."""
    return np.ascontiguousarray(pair).view("<f2").astype(np.float32)


def _q1_0(blocks: np.ndarray) -> np.ndarray:
    """The scale, then bits, the least significant first, 1 for +scale."""
    scale = _half(blocks[:, :2])
    return np.where(np.unpackbits(blocks[:, 2:], axis=-1, bitorder="little") == 1, scale, -scale)


def _q2_0(blocks: np.ndarray) -> np.ndarray:
    """The scale, then four weights a byte, the lowest bits first, as code - 1."""
    codes = blocks[:, 2:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
    return (codes.reshape(len(blocks), -1).astype(np.float32) - 1) * _half(blocks[:, :2])


def _trits(packed: np.ndarray, count: int) -> np.ndarray:
    """Digits -1, 0, 1 of numbers in base 3, all first ones and then all second ones. packed: uint8 [n, k]."""
    powers = 3 ** np.arange(count, dtype=np.uint16)[:, None]
    turned = (packed[:, None].astype(np.uint16) * powers & 255) * 3 >> 8
    return turned.reshape(len(packed), -1).astype(np.float32) - 1


def _ptq1_0(blocks: np.ndarray) -> np.ndarray:
    """16 and 8 bytes of five weights each, 2 bytes of four, the scale last."""
    digits = [_trits(blocks[:, :16], 5), _trits(blocks[:, 16:24], 5), _trits(blocks[:, 24:26], 4)]
    return np.concatenate(digits, axis=-1) * _half(blocks[:, 26:])


def _i2_s_codes(blocks: np.ndarray) -> np.ndarray:
    """Blocks of 32 bytes over the flattened tensor: byte p has the weights p, 32 + p, 64 + p and 96 + p, the highest
    bits first."""
    codes = blocks[:, None] >> np.array([6, 4, 2, 0], np.uint8)[:, None] & 3
    return codes.reshape(len(blocks), -1).astype(np.float32) - 1


#: by ggml's type id; those of the `gguf` package come from there
_OWN = {
    36: StoredType("I2_S", 128, 32, _i2_s_codes, tail=32),
    41: StoredType("Q1_0", 128, 18, _q1_0),
    142: StoredType("PQ2_0", 128, 34, _q2_0),
    143: StoredType("PTQ1_0", 128, 28, _ptq1_0),
}

Q2_0 = 42
#: two layouts under one id, told apart by the sizes of a file's tensors
Q2_0_LAYOUTS = (StoredType("Q2_0", 64, 18, _q2_0), StoredType("Q2_0", 128, 34, _q2_0))


def stored_type(type_id: int) -> StoredType | None:
    """None: it cannot be decoded. Not for Q2_0."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    if type_id in _OWN:
        return _OWN[type_id]
    try:
        kind = GGMLQuantizationType(type_id)
        weights, size = GGML_QUANT_SIZES[kind]
        quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return StoredType(kind.name, weights, size, lambda blocks: quants.dequantize(blocks, kind))


def decode(stored: StoredType, data: np.ndarray) -> np.ndarray:
    """float32 [weights] of a whole tensor's bytes, uint8. Raises ValueError for a code that no writer makes."""
    blocks = data[: len(data) - stored.tail].reshape(-1, stored.bytes)
    values = stored.decode(blocks).astype(np.float32).reshape(-1)
    if stored.name != "I2_S":
        return values
    # one scale of the whole tensor; the fourth code is what another layout or another type gives
    if (values > 1).any():
        raise ValueError("I2_S with a code of 3")
    return values * np.ascontiguousarray(data[-stored.tail :][:4]).view("<f4")
