"""`prism.hadamard.*` in GGUF files: matrices that are stored rotated (Bonsai 2), turned back here.

Such a file has W' = W S H for a matrix W, S the signs of its input's width and H the normalised Walsh-Hadamard transform
in blocks; so W = W' H S, and the same for the rows of an embedding. A teacher's activations are then the usual ones.
Whatever is not understood is an error by its name: a rotated matrix that is not turned back gives fluent nonsense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DistillError
from ..model.config import LlamaConfig

_PREFIX = "prism.hadamard."
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_NEVER = (".ssm_alpha.weight", ".ssm_beta.weight", ".ssm_conv1d.weight")
_WIDEST = 1 << 16


def _bad(key: str, problem: str) -> DistillError:
    hint = "Its weights are rotated, and this is needed to turn them back."
    return DistillError("ERR_BAD_SOURCE", f"{_PREFIX}{key} {problem}", hint)


def hadamard(x: Tensor, block: int) -> Tensor:
    """The normalised transform of every `block` numbers of the last dimension. block: a power of two."""
    shape, step = x.shape, 1
    while step < block:
        pairs = x.reshape(*shape[:-1], -1, 2, step)
        x = torch.stack((pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]), dim=-2)
        x, step = x.reshape(shape), 2 * step
    return x / math.sqrt(block)


@dataclass(frozen=True)
class Rotated:
    """Which tensors of a file are stored rotated, and how."""

    block: int
    #: +1 and -1 by input width; empty: nothing but +1
    signs: dict[int, Tensor]
    #: the file's names
    weights: frozenset[str]
    #: rotated matrices behind a delta rule have their columns in the order of heads that folders have
    gdn_grouped: bool

    def turned_back(self, config: LlamaConfig, name: str, tensor: Tensor) -> Tensor:
        """A tensor by its name in the file, float32 [rows, columns], as it was before the rotation."""
        if name not in self.weights:
            return tensor
        tensor = hadamard(tensor, self.block)
        if self.signs:
            tensor = tensor * self.signs[tensor.shape[1]]
        if self.gdn_grouped and name.endswith(".ssm_out.weight"):
            share = config.delta_v_heads // config.delta_k_heads
            heads = tensor.unflatten(1, (config.delta_k_heads, share, config.delta_v_dim))
            tensor = heads.transpose(1, 2).flatten(1)
        return tensor


class _Keys:
    """Metadata by the names behind the prefix; each has to be asked for."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = {name: field for name, field in fields.items() if name.startswith("prism.")}
        self._asked: set[str] = set()

    def get(self, key: str) -> Any:
        self._asked.add(f"{_PREFIX}{key}")
        found = self._fields.get(f"{_PREFIX}{key}")
        return None if found is None else found.contents()

    def u32(self, key: str) -> int | None:
        """None: it is not there, or of another type."""
        from gguf import GGUFValueType

        value = self.get(key)
        return value if value is not None and self._fields[f"{_PREFIX}{key}"].types == [GGUFValueType.UINT32] else None

    def unsupported(self, key: str) -> DistillError:
        value = self.get(key)
        found = f"without {_PREFIX}{key}" if value is None else f"with {_PREFIX}{key} {str(value)[:40]}"
        return DistillError("ERR_UNSUPPORTED_ARCHITECTURE", f"The teacher is rotated {found}")

    def word(self, key: str, *known: str) -> str:
        value = self.get(key)
        if value not in known:
            raise self.unsupported(key)
        return value

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, (bool, type(None))):
            raise _bad(key, f"must be true or false, found {str(value)[:40]}")
        return bool(value)

    def listed(self, key: str, kind: type) -> list[Any]:
        value = self.get(key)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise _bad(key, f"must be a list of {'names' if kind is str else 'whole numbers'}")
        return value

    def names(self, key: str) -> list[str]:
        names = self.listed(key, str)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise _bad(key, f"has {twice[:80]!r} twice")
        return names

    def check_nothing_left(self) -> None:
        left = next((name for name in self._fields if name not in self._asked), None)
        if left is not None:
            message = f"The teacher is rotated with the unknown key {left[:80]}"
            raise DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message)


def _read_signs(keys: _Keys, block: int) -> dict[int, Tensor]:
    if keys.word("sign_mode", "identity", "explicit") == "identity":
        # whatever they hold, they are not used then
        keys.get("sign_widths")
        keys.get("sign_values")
        return {}
    widths, values = keys.listed("sign_widths", int), keys.listed("sign_values", int)
    if not widths or len(set(widths)) < len(widths):
        raise _bad("sign_widths", "must be a list of different widths")
    wrong = next((width for width in widths if not 1 <= width <= _WIDEST or width % block != 0), None)
    if wrong is not None:
        raise _bad("sign_widths", f"has {wrong}, which is not a multiple of the block {block} up to {_WIDEST}")
    if len(values) != sum(widths):
        raise _bad("sign_values", f"must have {sum(widths)} values for these widths, found {len(values)}")
    if not set(values) <= {1, -1}:
        raise _bad("sign_values", "must hold 1 and -1")
    return dict(zip(widths, torch.tensor(values, dtype=torch.float32).split(widths), strict=True))


def _check_matrix(key: str, name: str, shapes: Mapping[str, tuple[int, ...]], block: int, signs: dict) -> None:
    if len(shapes.get(name, ())) != 2:
        raise _bad(key, f"names {name[:80]!r}, which is no matrix of the file")
    width = shapes[name][1]
    if width % block != 0:
        raise _bad("block_size", f"is {block}, which does not divide the {width} columns of {name[:80]}")
    if signs and width not in signs:
        raise _bad("sign_widths", f"has no signs for the {width} columns of {name[:80]}")


def _check_head(keys: _Keys, version: int, embedding: bool, has_head: bool) -> None:
    """The head: its own one, or (version 2, and only there) the rotated embedding."""
    tied = keys.flag("tied_output")
    if tied != (version == 2):
        raise _bad("tied_output", f"must be {str(not tied).lower()} in version {version}")
    if tied and has_head:
        raise _bad("tied_output", f"is true, but the file has its own {_HEAD}")
    if tied and not embedding:
        raise _bad("inverse_weight_names", f"must hold {_EMBEDDING} where it is the head too")
    if embedding and not tied and not has_head:
        raise _bad("inverse_weight_names", f"holds {_EMBEDDING}, which is the head too: that needs version 2")


def read_prism_hadamard(fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Rotated | None:
    """fields: of a GGUFReader; shapes: [rows, columns] of the file's tensors. None: nothing is rotated.

    Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE for what is not computed, ERR_BAD_SOURCE for what contradicts itself.
    """
    if not any(name.startswith("prism.") for name in fields):
        return None
    keys = _Keys(fields)
    version = keys.u32("version")
    if version not in (1, 2):
        raise keys.unsupported("version")
    keys.word("transform", "normalized-sylvester-walsh-hadamard")
    keys.word("axis", "input-last-dimension")
    block = keys.u32("block_size") or 0
    if not 2 <= block <= _WIDEST or block & (block - 1) != 0:
        raise _bad(
            "block_size", f"must be a power of two from 2 to {_WIDEST}, found {str(keys.get('block_size'))[:40]}"
        )
    signs = _read_signs(keys, block)
    weights, inverse = keys.names("weight_names"), keys.names("inverse_weight_names")
    if not weights:
        raise _bad("weight_names", "must name the rotated matrices, found none")
    for name in weights:
        # the embedding has a list of its own; the others read what is not rotated
        if name == _EMBEDDING or name.endswith(_NEVER):
            raise _bad("weight_names", f"names {name[:80]!r}, which never is")
        _check_matrix("weight_names", name, shapes, block, signs)
    if not set(inverse) <= {_EMBEDDING}:
        raise _bad("inverse_weight_names", f"names another tensor than {_EMBEDDING}")
    for name in inverse:
        _check_matrix("inverse_weight_names", name, shapes, block, signs)
    _check_head(keys, version, bool(inverse), _HEAD in shapes)
    grouped = keys.flag("gdn_v_grouped")
    keys.check_nothing_left()
    return Rotated(block, signs, frozenset((*weights, *inverse)), grouped)
