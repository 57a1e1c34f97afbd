"""CRC-32C (Castagnoli) in numpy: many lanes side by side, joined afterwards, because Python's loops are too slow."""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78
_LANES = 1 << 14


def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _byte_table()
#: _WORD[k][b]: what byte b does when k zero bytes follow it
_WORD = [_TABLE]
for _ in range(3):
    _WORD.append(_TABLE[_WORD[-1] & 0xFF] ^ (_WORD[-1] >> 8))


def _apply(columns: np.ndarray, crc: np.ndarray) -> np.ndarray:
    """A 32 x 32 matrix over GF(2), as its 32 columns, times each of `crc`."""
    out = np.zeros_like(crc)
    for bit in range(32):
        out ^= np.where((crc >> np.uint32(bit)) & 1, columns[bit], np.uint32(0))
    return out


def _zero_bytes(count: int) -> np.ndarray:
    """The matrix that feeds `count` zero bytes to a register."""
    result = np.uint32(1) << np.arange(32, dtype=np.uint32)
    step = _TABLE[result & 0xFF] ^ (result >> np.uint32(8))
    while count:
        if count & 1:
            result = _apply(step, result)
        step = _apply(step, step)
        count >>= 1
    return result


def crc32c(data: bytes | memoryview) -> int:
    """The usual CRC-32C: crc32c(b"123456789") == 0xE3069283."""
    size = len(data)
    lanes = _LANES if size >= 64 * _LANES else 1 << max(0, (size // 256).bit_length() - 1)
    lane_bytes = -(-max(size, 4) // (lanes * 4)) * 4
    # Zeros in front do not change a register that starts at 0; starting at all ones is the same as flipping the first
    # 32 bits of the data.
    padded = np.zeros(lanes * lane_bytes, dtype=np.uint8)
    padded[padded.size - size :] = np.frombuffer(data, dtype=np.uint8)
    if size < 4:
        return _short(bytes(data))
    padded[padded.size - size : padded.size - size + 4] ^= 0xFF
    words = np.ascontiguousarray(padded.view("<u4").reshape(lanes, -1).T)
    crc = np.zeros(lanes, dtype=np.uint32)
    for word in words:
        crc = crc ^ word
        crc = _WORD[3][crc & 0xFF] ^ _WORD[2][(crc >> 8) & 0xFF] ^ _WORD[1][(crc >> 16) & 0xFF] ^ _WORD[0][crc >> 24]
    shift = _zero_bytes(lane_bytes)
    while crc.size > 1:
        crc = _apply(shift, crc[0::2]) ^ crc[1::2]
        shift = _apply(shift, shift)
    return int(crc[0]) ^ 0xFFFFFFFF


def _short(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = int(_TABLE[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
