"""Ternary weights in Hugging Face folders (`quantization_config` of method bitnet; transformers, integrations/bitnet.py).

What comes out are the float weights that the model multiplies by. Its 8-bit activations are not computed: a student
learns from the float ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import DistillError

_SCALE = ".weight_scale"


def _unpack(packed: Tensor) -> Tensor:
    """uint8 [rows / 4, columns] -> -1, 0, 1 as float32 [rows, columns]: row i rows/4 + r in the bits 2i of row r."""
    codes = torch.cat([packed >> shift & 3 for shift in (0, 2, 4, 6)])
    return codes.to(torch.float32) - 1


class TernaryWeights:
    """The weights of one folder, of the sort that its config.json says."""

    def __init__(self, *, online: bool, multiplies: bool = True, untouched: tuple[str, ...] = ()) -> None:
        #: the file has float weights, which become ternary whenever they are used
        self._online = online
        #: the scale beside packed weights multiplies them; otherwise they are divided by it
        self._multiplies = multiplies
        #: parts of the names of float weights that stay as they are
        self._untouched = untouched

    @classmethod
    def of(cls, root: dict[str, Any]) -> TernaryWeights | None:
        """None: the weights are not quantised. Raises DistillError ERR_UNSUPPORTED_TENSOR_TYPE for other methods, and
        ERR_UNSUPPORTED_ARCHITECTURE for what this one may do besides."""
        found = root.get("quantization_config")
        if found is None:
            # the first folders of this kind, of remote code
            return cls(online=True) if root.get("weight_bits") == 1 else None
        method = found.get("quant_method") if isinstance(found, dict) else None
        if method != "bitnet":
            hint = "Give the original, unquantised model, or a GGUF of it."
            message = f"config.json: the weights are quantised ({str(method)[:40]})"
            raise DistillError("ERR_UNSUPPORTED_TENSOR_TYPE", message, hint)
        # Falcon3, Falcon-E and Llama3-8B-1.58 have no linear_class, and their scale stands below the weights
        automatic = found.get("linear_class", "bitlinear") == "autobitlinear"
        online = automatic and found.get("quantization_mode", "offline") == "online"
        allowed = {"linear_class": ("bitlinear", "autobitlinear"), "use_rms_norm": (False, None)}
        allowed["quantization_mode"] = ("offline", "online") if automatic else ("offline",)
        for key, values in allowed.items():
            if found.get(key, values[0]) not in values:
                message = f"The teacher is quantised by bitnet with {key} {str(found[key])[:40]}"
                raise DistillError("ERR_UNSUPPORTED_ARCHITECTURE", message)
        untouched = found.get("modules_to_not_convert") or ()
        if not all(isinstance(name, str) for name in untouched):
            raise DistillError("ERR_BAD_SOURCE", "config.json: modules_to_not_convert must be a list of names")
        return cls(online=online, multiplies=automatic, untouched=tuple(untouched))

    def decoded(self, stored: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same tensors with weights in float32 and without scales.

        Raises DistillError ERR_MISSING_TENSOR, ERR_BAD_SOURCE."""
        packed: dict[str, Tensor] = {}
        scales: dict[str, Tensor] = {}
        for name, tensor in stored:
            if name.endswith(_SCALE):
                scales[name] = tensor
            elif tensor.dtype == torch.uint8:
                packed[name] = tensor
            elif self._online and name.endswith("_proj.weight") and not any(part in name for part in self._untouched):
                yield name, self._rounded(tensor)
            else:
                yield name, tensor
        for name, tensor in packed.items():
            scale = scales.pop(f"{name.removesuffix('.weight')}{_SCALE}", None)
            if scale is None or scale.numel() != 1:
                problem = f"The packed weights {name} need one number {_SCALE[1:]} beside them"
                raise DistillError("ERR_MISSING_TENSOR", problem)
            yield name, self._scaled(name, tensor, scale.float())
        if scales:
            raise DistillError("ERR_BAD_SOURCE", f"The source has a tensor {min(scales)} and no packed weights for it")

    def _scaled(self, name: str, packed: Tensor, scale: Tensor) -> Tensor:
        if not torch.isfinite(scale).all() or (scale == 0).any():
            raise DistillError("ERR_BAD_SOURCE", f"The scale of {name} is {float(scale)}, which is no scale")
        values = _unpack(packed)
        if (values > 1).any():
            raise DistillError("ERR_BAD_SOURCE", f"The packed weights {name} have a code of 3: the source is damaged")
        return values * scale if self._multiplies else values / scale

    def _rounded(self, weight: Tensor) -> Tensor:
        """What transformers makes of a float weight: three levels, the mean magnitude of the matrix apart."""
        wide = weight.float()
        scale = 1 / wide.abs().mean().clamp_min(1e-5)
        return (wide * scale).round().clamp(-1, 1) / scale
