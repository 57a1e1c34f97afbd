"""Writing `.obt` files: safetensors with one legal header for its config (src/config/tensors.ts, src/obt/obt-header.ts)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DistillError
from ..model.config import LlamaConfig
from ..model.fields import FEATURES, FIELDS
from ..system.atomic_file import writing_atomically
from .crc32c import crc32c
from .js_json import depth, to_js_json

_DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_DENSE = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8": "I8"}
_MAX_TOKENIZER_BYTES = 128 << 20
_MAX_CHAT_TEMPLATE_BYTES = 4 << 20
_MAX_HEADER_BYTES = 4 << 20
_MAX_DEPTH = 5

#: how a matrix is stored: the fields of LinearKind
Kind = dict[str, Any]


def dense_kind(dtype: str, bias: bool = False) -> Kind:
    return {"kind": "dense", "dtype": dtype, "bias": bias}


def sign_kind(
    rank: int, mid_scale: bool, layernorm: bool, bias: bool, *, column: bool = False, half: bool = False
) -> Kind:
    """rank 0: one sign matrix with g and h; above: two, chained. column: of floats, beside the signs; half: vectors are f16."""
    kind = {"kind": "sign", "rank": rank, "mid_scale": mid_scale, "layernorm": layernorm, "bias": bias}
    return kind | ({"column": True} if column else {}) | ({"half": True} if half else {})


@dataclass(frozen=True)
class TensorSpec:
    name: str
    #: F32 | F16 | BF16 | I8 | U8
    dtype: str
    shape: tuple[int, ...]
    #: embedding | positions | head | linear | norm | recurrence | blob
    part: str

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * _DTYPES[self.dtype].itemsize


def obt_config(config: LlamaConfig, kinds: dict[tuple[int, str], Kind], embedding: Kind, head: Kind) -> dict[str, Any]:
    """The file's config in its one form: keys in the order of FIELDS, features with their defaults left out.

    kinds: of every (layer, role) that there is."""
    layers = range(config.n_layers)
    linears = {role: next(kinds[i, role] for i in layers if (i, role) in kinds) for role in config.roles()}
    for layer in layers:
        for role in config.roles(layer):
            if kinds[layer, role] != linears[role]:
                linears[f"{layer}.{role}"] = kinds[layer, role]
    scaling = config.rope_scaling
    order = ("factor", "low_freq_factor", "high_freq_factor", "original_context", "beta_fast", "beta_slow")
    order = ("type", *order, "attention_factor", "factors")
    stored = {
        "rope_style": "half",
        "rope_scaling": {name: scaling[name] for name in order if name in scaling},
        "embedding": embedding,
        "head": embedding if config.tied_head else head,
        "linears": linears,
    }
    features = config.features()
    names = [item["name"] for item in FIELDS if item["name"] not in FEATURES or item["name"] in features]
    return {name: stored[name] if name in stored else getattr(config, name) for name in names}


def _matrix_tensors(name: str, kind: Kind, rows: int, cols: int, part: str) -> Iterator[TensorSpec]:
    def spec(suffix: str, dtype: str, *shape: int) -> TensorSpec:
        return TensorSpec(f"{name}.{suffix}", dtype, shape, part)

    if kind["kind"] == "dense":
        yield spec("weight", _DENSE[kind["dtype"]], rows, cols)
        if kind["dtype"] == "q8":
            yield spec("scale", "F32", rows)
    else:
        rank, floats = kind["rank"], "F16" if kind.get("half") else "F32"
        yield spec("g", floats, cols)
        if rank == 0:
            yield spec("sign", "U8", rows, cols // 8)
        else:
            yield spec("sign1", "U8", rank, cols // 8)
            if kind["mid_scale"]:
                yield spec("mid", floats, rank)
            yield spec("sign2", "U8", rows, rank // 8)
        yield spec("h", floats, rows)
        if kind.get("column"):
            yield spec("u", floats, rows)
            yield spec("v", floats, cols)
    if kind["bias"]:
        yield spec("bias", "F32", rows)


def _norm_tensors(config: LlamaConfig, name: str, size: int) -> list[TensorSpec]:
    weight = TensorSpec(name, "F32", (size,), "norm")
    return [weight, TensorSpec(f"{name}.bias", "F32", (size,), "norm")] if config.norm_bias else [weight]


def _layer_tensors(obt: dict[str, Any], config: LlamaConfig, layer: int) -> list[TensorSpec]:
    prefix = f"layers.{layer}"

    def linear(role: str) -> list[TensorSpec]:
        kind = obt["linears"].get(f"{layer}.{role}", obt["linears"][role])
        return list(_matrix_tensors(f"{prefix}.{role}", kind, *config.linear_shape(role), "linear"))

    def norm(name: str, size: int) -> list[TensorSpec]:
        return _norm_tensors(config, f"{prefix}.{name}", size)

    def plain(part: str, **shapes: tuple[int, ...]) -> list[TensorSpec]:
        return [TensorSpec(f"{prefix}.{name}", "F32", shape, part) for name, shape in shapes.items()]

    table = norm("attention_norm", config.dim)
    if layer in config.delta_layers:
        heads = (config.delta_v_heads,)
        table += [*linear("w_qkv"), *linear("w_z"), *linear("w_beta"), *linear("w_alpha")]
        table += plain("recurrence", conv=(config.delta_channels, config.delta_conv), decay=heads, time_bias=heads)
        table += [*plain("norm", delta_norm=(config.delta_v_dim,)), *linear("w_out")]
    else:
        table += [*linear("wq"), *linear("wk"), *linear("wv")]
        if config.qk_norm:
            table += plain("norm", q_norm=(config.head_dim,), k_norm=(config.head_dim,))
        if config.attention_inner_norm:
            table += norm("attention_inner_norm", config.n_heads * config.head_dim)
        table += linear("wo")
    table += [*norm("ffn_norm", config.dim), *linear("w1")]
    if config.ffn_inner_norm:
        table += norm("ffn_inner_norm", config.hidden_dim)
    return [*table, *linear("w2"), *(linear("w3") if config.feed_forward == "gated" else [])]


def tensor_table(obt: dict[str, Any], config: LlamaConfig, blobs: dict[str, int]) -> list[TensorSpec]:
    """Every tensor in file order. obt: of `obt_config`; blobs: bytes of `tokenizer` and `chat_template`, 0 for none."""
    table = list(_matrix_tensors("tok_embeddings", obt["embedding"], config.vocab_size, config.dim, "embedding"))
    if config.positions == "learned":
        rows = config.context_length + config.position_offset
        table.append(TensorSpec("position_embeddings", "F32", (rows, config.dim), "positions"))
    for layer in range(config.n_layers):
        table += _layer_tensors(obt, config, layer)
    table += _norm_tensors(config, "norm", config.dim)
    if not config.tied_head:
        table += _matrix_tensors("output", obt["head"], config.vocab_size, config.dim, "head")
    for name in ("tokenizer", "chat_template"):
        if blobs[name] > 0:
            table.append(TensorSpec(name, "U8", (blobs[name],), "blob"))
    return table


def _header(obt: dict[str, Any], provenance: dict[str, Any], table: list[TensorSpec], crcs: list[int]) -> bytes:
    zero = "00000000"
    tensors = "".join(f"{crc:08x}" for crc in crcs)
    metadata = {
        "format": "obt",
        "version": "1",
        "config": to_js_json(obt),
        "provenance": to_js_json(provenance),
        "crc32c": to_js_json({"tensors": tensors, "header": zero}),
    }
    parts, at = [], 0
    for spec in table:
        entry = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [at, at + spec.bytes]}
        parts.append(f",{to_js_json(spec.name)}:{to_js_json(entry)}")
        at += spec.bytes
    text = f'{{"__metadata__":{to_js_json(metadata)}{"".join(parts)}}}'.encode()
    text += b" " * (-(8 + len(text)) % 64)
    if len(text) > _MAX_HEADER_BYTES:
        raise DistillError(
            "ERR_HEADER", f"The header would have {len(text)} bytes, at most {_MAX_HEADER_BYTES} are read"
        )
    # The config and the provenance come before it and may contain the same text, but escaped once more.
    mark = b'\\"header\\":\\"'
    digits = text.index(mark + zero.encode() + b'\\"}"}') + len(mark)
    text = text[:digits] + f"{crc32c(text):08x}".encode() + text[digits + 8 :]
    return len(text).to_bytes(8, "little") + text


def _check_provenance(provenance: dict[str, Any]) -> None:
    if not isinstance(provenance, dict):
        raise DistillError("ERR_HEADER", "provenance must be an object")
    if depth(provenance) > _MAX_DEPTH:
        raise DistillError("ERR_HEADER", f"provenance is nested deeper than {_MAX_DEPTH} levels")
    to_js_json(provenance)


def write_obt(
    path: str | os.PathLike,
    config: LlamaConfig,
    obt: dict[str, Any],
    produce: Callable[[TensorSpec], np.ndarray],
    *,
    tokenizer: bytes | None = None,
    chat_template: bytes | None = None,
    provenance: dict[str, Any] | None = None,
) -> int:
    """Writes a model atomically and returns its bytes. `produce` gives each tensor of the table, in its order.

    Raises DistillError ERR_HEADER, ERR_BLOB_SIZE, ERR_TENSOR_SHAPE, and those of `writing_atomically`.
    """
    provenance = provenance or {}
    _check_provenance(provenance)
    blobs = {"tokenizer": tokenizer or b"", "chat_template": chat_template or b""}
    for name, most in (("tokenizer", _MAX_TOKENIZER_BYTES), ("chat_template", _MAX_CHAT_TEMPLATE_BYTES)):
        if len(blobs[name]) > most:
            raise DistillError("ERR_BLOB_SIZE", f"The {name} has {len(blobs[name])} bytes, at most {most} are read")
    table = tensor_table(obt, config, {name: len(blob) for name, blob in blobs.items()})
    start = len(_header(obt, provenance, table, [0] * len(table)))
    crcs: list[int] = []
    with writing_atomically(path) as file:
        file.seek(start)
        for spec in table:
            data = blobs[spec.name] if spec.part == "blob" else _bytes_of(spec, produce(spec))
            crcs.append(crc32c(data))
            file.write(data)
        size = file.tell()
        file.seek(0)
        file.write(_header(obt, provenance, table, crcs))
    return size


def _bytes_of(spec: TensorSpec, values: np.ndarray) -> memoryview:
    expected = _DTYPES[spec.dtype]
    if values.shape != spec.shape or values.dtype != expected:
        message = f"Tensor {spec.name} must be {expected} {list(spec.shape)}, found {values.dtype} {list(values.shape)}"
        raise DistillError("ERR_TENSOR_SHAPE", message)
    return memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
