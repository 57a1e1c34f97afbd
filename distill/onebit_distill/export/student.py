"""A trained student as a `.obt` file: signs packed, everything else as it is. Nothing is folded or rounded silently."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..data.teacher import Teacher
from ..data.teacher_text import TeacherText
from ..errors import DistillError
from ..formats.obt_file import Kind, TensorSpec, dense_kind, obt_config, sign_kind, write_obt
from ..model.config import HF_LINEARS
from ..model.delta import DeltaNet
from ..model.linear import BitNetLinear, Dense, OneBitLinear, SignChain
from ..model.llama import Llama

_ENCODINGS = ("f32", "f16", "bf16", "q8")
_SCALES = ("f32", "f16")
_TOO_LARGE = "Export with --scales f32."


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().contiguous().numpy()


def pack_signs(w: Tensor) -> np.ndarray:
    """uint8 [rows, cols/8], the least significant bit first, bit 1 = -1; zeros, of either sign, are +1."""
    if w.shape[1] % 8 != 0:
        message = f"signs are packed in eights of columns, found {w.shape[1]} columns"
        raise DistillError("ERR_NOT_EXPORTABLE", message, "Choose widths that are multiples of 8.")
    return np.packbits((w.detach() < 0).cpu().numpy(), axis=1, bitorder="little")


def q8_rows(w: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int8 [rows, cols] and float32 scale [rows], the engine's rounding (binding/convert/convert.cpp, rows_to_q8)."""
    wide = w.detach().float().cpu()
    largest = wide.abs().amax(1)
    zero = largest < 1e-36
    scale = torch.where(zero, 0.0, largest / 127)
    inverse = torch.where(zero, 0.0, 127 / largest.clamp_min(1e-36))
    return (wide * inverse[:, None]).round().to(torch.int8).numpy(), scale.numpy()


@torch.no_grad()
def as_stored(weight: Tensor, encoding: str) -> Tensor:
    """The weight [rows, cols] as a file of this encoding (f32 | f16 | bf16 | q8) holds it, float32."""
    if encoding == "q8":
        rows, scale = q8_rows(weight)
        return torch.from_numpy(rows).float() * torch.from_numpy(scale)[:, None]
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[encoding]
    return weight.detach().to(dtype).float()


def _halves(name: str, values: np.ndarray, hint: str) -> np.ndarray:
    """float16 of the same numbers; what was not finite before is left to whoever looks for that."""
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half[np.isfinite(values)]).all():
        raise DistillError("ERR_NOT_EXPORTABLE", f"{name} has weights beyond f16's range", hint)
    return half


def _dense_tensors(name: str, weight: Tensor, dtype: str) -> dict[str, np.ndarray]:
    if dtype == "q8":
        rows, scale = q8_rows(weight)
        return {f"{name}.weight": rows, f"{name}.scale": scale}
    if dtype == "bf16":
        bits = weight.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16).numpy()
        return {f"{name}.weight": bits.view("<u2")}
    values = _numpy(weight)
    return {f"{name}.weight": _halves(name, values, "Choose f32 or q8.") if dtype == "f16" else values}


def _centred(layer: BitNetLinear) -> Tensor:
    weight = layer.weight.detach().float()
    return weight - weight.mean()


def _kind_of(name: str, layer: nn.Module, dense: str, half: bool) -> Kind:
    bias = layer.bias is not None
    if isinstance(layer, (OneBitLinear, SignChain)):
        rank = layer.rank if isinstance(layer, SignChain) else 0
        return sign_kind(rank, rank > 0, layer.options.layernorm, bias, column=layer.column_out is not None, half=half)
    if isinstance(layer, BitNetLinear):
        if layer.options.layernorm:
            message = f"{name} has BitNet's LayerNorm in front of the product, which a .obt file cannot say"
            raise DistillError("ERR_NOT_EXPORTABLE", message, "Train kind onebit, or bitnet without LayerNorm.")
        return sign_kind(0, False, False, bias, half=half)
    if isinstance(layer, Dense):
        return dense_kind(dense, bias)
    raise DistillError("ERR_NOT_EXPORTABLE", f"{name} is a {type(layer).__name__}, which a .obt file cannot hold")


def _shared(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors whose products alone count, by a power of two made about as large as each other: f16 has room for
    neither very large nor very small ones."""
    largest, other = float(a.detach().abs().max()), float(b.detach().abs().max())
    share = 2.0 ** round(math.log2(largest / other) / 2) if 0 < largest < math.inf and 0 < other < math.inf else 1.0
    return _numpy(a / share), _numpy(b * share)


#: parameters of OneBitLinear and SignChain by the names that a file has for them
_VECTORS = {
    "g": "input_factor", "mid": "mid_scale", "h": "weight_scale", "u": "column_out", "v": "column_in"
}  # fmt: skip


def _sign_vectors(name: str, layer: OneBitLinear | SignChain, half: bool) -> dict[str, np.ndarray]:
    """g, mid, h, u and v, as far as there are."""
    pairs = [("g", layer.input_factor, "h", layer.weight_scale)]
    if layer.column_out is not None:
        pairs.append(("v", layer.column_in, "u", layer.column_out))
    out: dict[str, np.ndarray] = {}
    for first, a, second, b in pairs:
        out[first], out[second] = _shared(a, b) if half else (_numpy(a), _numpy(b))
    if isinstance(layer, SignChain):
        out["mid"] = _numpy(layer.mid_scale)
    return {key: _halves(f"{name}.{key}", value, _TOO_LARGE) if half else value for key, value in out.items()}


@torch.no_grad()
def round_as_exported(model: Llama, embed: str = "q8", scales: str = "f32") -> Llama:
    """Rounds embedding, head and what stands beside signs in place to what a file of `embed` and `scales` holds: for scores
    that hold for the file."""
    tables = [model.model.embed_tokens.weight] + ([] if model.lm_head is None else [model.lm_head.weight])
    for weight in tables:
        weight.copy_(as_stored(weight, embed))
    for name, layer in model.linears().items():
        if isinstance(layer, (OneBitLinear, SignChain)):
            for key, values in _sign_vectors(name, layer, scales == "f16").items():
                getattr(layer, _VECTORS[key]).copy_(torch.from_numpy(values))
    return model


def _linear_tensors(name: str, layer: nn.Module, dense: str, half: bool) -> dict[str, np.ndarray]:
    if isinstance(layer, OneBitLinear):
        out = {"sign": pack_signs(layer.weight), **_sign_vectors(name, layer, half)}
    elif isinstance(layer, SignChain):
        signs = {"sign1": pack_signs(layer.weight1), "sign2": pack_signs(layer.weight2)}
        out = signs | _sign_vectors(name, layer, half)
    elif isinstance(layer, BitNetLinear):
        centred, dtype = _centred(layer), np.float16 if half else np.float32
        out = {
            "g": np.ones(layer.in_features, dtype),
            "sign": pack_signs(centred),
            "h": np.full(layer.out_features, float(centred.abs().mean()), dtype),
        }
    else:
        dense_parts = _dense_tensors(name, layer.effective_weight(), dense)
        out = {key.removeprefix(f"{name}."): value for key, value in dense_parts.items()}
    if layer.bias is not None:
        out["bias"] = _numpy(layer.bias)
    return {f"{name}.{suffix}": value for suffix, value in out.items()}


#: within a block, by their names in a file
_NORMS = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "attention_inner_norm": "self_attn.attn_sub_norm",
    "ffn_inner_norm": "mlp.ffn_sub_norm",
    "delta_norm": "linear_attn.norm",
}


def _recurrence_tensor(part: str, layer: DeltaNet) -> np.ndarray:
    if part == "conv":
        return _numpy(layer.conv1d.weight)[:, 0]
    return _numpy(layer.dt_bias if part == "time_bias" else -layer.A_log.float().exp())


def _norm_tensors(name: str, norm: nn.Module) -> dict[str, np.ndarray]:
    bias = getattr(norm, "bias", None)
    return {name: _numpy(norm.weight)} | ({} if bias is None else {f"{name}.bias": _numpy(bias)})


class _Tensors:
    """Makes tensors when the writer asks for them, one matrix at a time."""

    def __init__(self, model: Llama, embed: str, dense: str, half: bool) -> None:
        self._model, self._embed, self._dense, self._half = model, embed, dense, half
        self._made: dict[str, np.ndarray] = {}

    def __call__(self, spec: TensorSpec) -> np.ndarray:
        if spec.name not in self._made:
            self._made = self._make(spec.name)
        values = self._made[spec.name]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            message = f"{spec.name} has NaN or infinite values: the training diverged"
            raise DistillError("ERR_NOT_FINITE", message, "Export an earlier checkpoint.")
        return values

    def _make(self, name: str) -> dict[str, np.ndarray]:
        body = self._model.model
        if name.split(".")[0] == "norm":
            return _norm_tensors("norm", body.norm)
        if name == "position_embeddings":
            return {name: _numpy(body.embed_positions.weight)}
        if name.startswith("tok_embeddings."):
            return _dense_tensors("tok_embeddings", body.embed_tokens.weight, self._embed)
        if name.startswith("output."):
            return _dense_tensors("output", self._model.lm_head.weight, self._embed)
        _, layer, part = name.split(".")[:3]
        block = body.layers[int(layer)]
        if part in _NORMS:
            return _norm_tensors(f"layers.{layer}.{part}", block.get_submodule(_NORMS[part]))
        if part in ("conv", "decay", "time_bias"):
            return {name: _recurrence_tensor(part, block.linear_attn)}
        return _linear_tensors(f"layers.{layer}.{part}", block.get_submodule(HF_LINEARS[part]), self._dense, self._half)


def _exact_zeros(model: Llama) -> int:
    weights = []
    for layer in model.linears().values():
        if isinstance(layer, OneBitLinear):
            weights.append(layer.weight)
        elif isinstance(layer, SignChain):
            weights += [layer.weight1, layer.weight2]
    return sum(int((weight == 0).sum()) for weight in weights)


@dataclass(frozen=True)
class ExportReport:
    path: str
    file_bytes: int
    #: stored bits (signs, scales, biases) per weight that the linears stand for
    bits_per_linear_weight: float
    #: latent weights that are exactly 0: +1 in the file, but 0 in training with torch.sign
    exact_zeros: int


def _provenance(teacher: Teacher | TeacherText | None, given: dict[str, Any] | None) -> dict[str, Any]:
    made: dict[str, Any] = {"method": "distilled", "trained": True}
    if isinstance(teacher, Teacher):
        source = os.path.basename(os.path.abspath(teacher.source))
        made["teacher"] = {"source": source, "format": teacher.format, "sha256": teacher.sha256, "files": teacher.files}
    return {**made, "made_by": f"onebit-distill {__version__}", **(given or {})}


def export_model(
    model: Llama,
    teacher: Teacher | TeacherText | None,
    path: str | os.PathLike,
    embed: str = "q8",
    provenance: dict[str, Any] | None = None,
    *,
    dense: str = "f32",
    scales: str = "f32",
) -> ExportReport:
    """Writes `path`. teacher: whose tokenizer, template and sha256 go along (None: the file works with ids only).

    embed: how embedding and head are stored, dense: how dense linears are (f32 | f16 | bf16 | q8), scales: how g and h and
    a column beside signs are (f32 | f16). provenance: fields to add, such as command and scores. Raises DistillError
    ERR_NOT_EXPORTABLE, ERR_NOT_FINITE, ERR_BAD_OPTION, ERR_TOKENIZER_FIT and those of `write_obt`; the target is replaced
    only when all went well.
    """
    for option, value, known in (("embed", embed, _ENCODINGS), ("dense", dense, _ENCODINGS), ("scales", scales, _SCALES)):
        if value not in known:
            raise DistillError("ERR_BAD_OPTION", f"{option} must be one of {', '.join(known)}, found {value!r}")
    text = teacher.text if isinstance(teacher, Teacher) else teacher
    config = model.config
    if text is not None and text.tokenizer.get_vocab_size() > config.vocab_size:
        message = f"The tokenizer has {text.tokenizer.get_vocab_size()} tokens, the model only {config.vocab_size}"
        raise DistillError("ERR_TOKENIZER_FIT", message, "The tokenizer belongs to another model.")
    made = model.linears()
    kinds = {
        (layer, role): _kind_of(name, made[name], dense, scales == "f16")
        for layer in range(config.n_layers)
        for role in config.roles(layer)
        for name in [f"model.layers.{layer}.{HF_LINEARS[role]}"]
    }
    obt = obt_config(config, kinds, dense_kind(embed), dense_kind(embed))
    produce = _Tensors(model, embed, dense, scales == "f16")
    linear_bytes = 0

    def counted(spec: TensorSpec) -> np.ndarray:
        nonlocal linear_bytes
        linear_bytes += spec.bytes if spec.part == "linear" else 0
        return produce(spec)

    size = write_obt(
        path,
        config,
        obt,
        counted,
        tokenizer=None if text is None else text.blob(),
        chat_template=None if text is None else text.chat_template_blob(),
        provenance=_provenance(teacher, provenance),
    )
    return ExportReport(os.fspath(path), size, 8 * linear_bytes / config.n_linear_weights, _exact_zeros(model))
