"""Qwen3.5: most layers mix by a gated delta rule (Gated DeltaNet), every fourth by attention whose output has a gate and
of whose heads a part is rotated. Only the text model is read: a vision tower and the layers that predict several tokens
ahead are passed over."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from ...model.config import LlamaConfig, config_error
from ..gguf_keys import GgufKeys
from ..hf_rope import hf_rope
from .architecture import Architecture, Gguf, HuggingFace, Names, unsupported
from .llama_family import GGUF_NAMES, HF_NAMES, attention_biases, is_table, read_gguf_sizes

_DELTA = "model.layers.*.linear_attn"
_PARTS = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "conv1d", "A_log", "dt_bias", "norm", "out_proj")

_HF_NAMES: Names = {**HF_NAMES, **{f"{_DELTA}.{part}": f"{_DELTA}.{part}" for part in _PARTS}}

_GGUF_NAMES: Names = {
    **GGUF_NAMES,
    "model.layers.*.post_attention_layernorm": "blk.*.post_attention_norm",
    f"{_DELTA}.in_proj_qkv": "blk.*.attn_qkv",
    f"{_DELTA}.in_proj_z": "blk.*.attn_gate",
    f"{_DELTA}.in_proj_b": "blk.*.ssm_beta",
    f"{_DELTA}.in_proj_a": "blk.*.ssm_alpha",
    f"{_DELTA}.conv1d": "blk.*.ssm_conv1d",
    f"{_DELTA}.A_log": "blk.*.ssm_a",
    f"{_DELTA}.dt_bias": "blk.*.ssm_dt.bias",
    f"{_DELTA}.norm": "blk.*.ssm_norm",
    f"{_DELTA}.out_proj": "blk.*.ssm_out",
}

_FEATURES = {"architecture": "qwen35", "qk_norm": True, "output_gate": True}

_OTHER_PARTS = re.compile(r"(model\.visual|visual|mtp)\.")


def _by_interval(layers: int, interval: int) -> list[int]:
    return [layer for layer in range(layers) if (layer + 1) % interval != 0]


def _delta(layers: list[int], **numbers: Any) -> dict[str, Any]:
    """A model without such layers has none of their numbers either."""
    return {"delta_layers": layers, **numbers} if layers else {}


def _recurrent_layers(root: dict[str, Any], layers: int) -> list[int]:
    types = root.get("layer_types")
    if types is None:
        return _by_interval(layers, root.get("full_attention_interval") or 4)
    if len(types) != layers:
        raise config_error(f"config.json: layer_types must name the type of each of {layers} layers")
    other = next((kind for kind in types if kind not in ("linear_attention", "full_attention")), None)
    if other is not None:
        raise unsupported(f"qwen3_5 with layers of type {str(other)[:40]!r}")
    return [layer for layer, kind in enumerate(types) if kind == "linear_attention"]


def _read(whole: dict[str, Any]) -> LlamaConfig:
    root = {**whole, **(whole.get("text_config") or {})}
    act = root.get("hidden_act") or "silu"
    if act not in ("silu", "swish"):
        raise unsupported(f"qwen3_5 with hidden_act {act!r}")
    if root.get("attn_output_gate") is False:
        raise unsupported("qwen3_5 with attn_output_gate false")
    layers, head_dim = root["num_hidden_layers"], root.get("head_dim") or 256
    context = root.get("max_position_embeddings") or 32768
    theta, scaling, partial = hf_rope({"partial_rotary_factor": 0.25, **root}, context)
    return LlamaConfig(
        **_FEATURES,
        vocab_size=root["vocab_size"],
        dim=root["hidden_size"],
        hidden_dim=root["intermediate_size"],
        n_layers=layers,
        n_heads=root["num_attention_heads"],
        n_kv_heads=root.get("num_key_value_heads") or 4,
        head_dim=head_dim,
        context_length=context,
        norm_eps=root.get("rms_norm_eps") or 1e-6,
        rope_theta=theta,
        rope_scaling=scaling,
        rope_dims=int(head_dim * partial),
        tied_head=root.get("tie_word_embeddings") is True,
        biases=attention_biases(root),
        **_delta(
            _recurrent_layers(root, layers),
            delta_k_heads=root.get("linear_num_key_heads") or 16,
            delta_v_heads=root.get("linear_num_value_heads") or 32,
            delta_k_dim=root.get("linear_key_head_dim") or 128,
            delta_v_dim=root.get("linear_value_head_dim") or 128,
            delta_conv=root.get("linear_conv_kernel_dim") or 4,
        ),
    )


def _distances(config: LlamaConfig, name: str, tensor: Tensor) -> Tensor:
    """Folders have the norms' distance from 1, except those behind the delta rule."""
    is_distance = name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight")
    return tensor.float() + 1 if is_distance else tensor


def _plain_layers(tensors: Collection[str]) -> int:
    """Layers that there are tensors of, up to the first that has what only layers that predict ahead have."""
    numbers = [int(name.split(".")[1]) for name in tensors if re.match(r"blk\.\d+\.", name)]
    ahead = [int(name.split(".")[1]) for name in tensors if re.match(r"blk\.\d+\.nextn\.", name)]
    return min(ahead, default=max(numbers, default=-1) + 1)


def _gguf_layers(keys: GgufKeys) -> tuple[int, list[int]]:
    """block_count counts the layers that predict ahead, which lie behind the others. A count that does not hold would
    leave the model's last layers out."""
    layers = keys.whole("block_count") - keys.whole("nextn_predict_layers", 0)
    if (found := _plain_layers(keys.tensors)) > layers:
        raise keys.bad(f"block_count without nextn_predict_layers makes {layers} layers, there are {found}")
    interval = keys.whole("full_attention_interval", 4)
    listed = keys.get("attention.recurrent_layers")
    if listed is None:
        if interval < 1:
            raise keys.bad(f"{keys.architecture}.full_attention_interval must be at least 1, found {interval}")
        return layers, _by_interval(layers, interval)
    if not isinstance(listed, list) or len(listed) < layers:
        raise keys.bad(f"{keys.architecture}.attention.recurrent_layers must be as long as the model")
    return layers, [layer for layer in range(layers) if listed[layer]]


def _read_gguf(keys: GgufKeys) -> LlamaConfig:
    # which of three positions turns which pair: those of a text are all the same
    keys.get("rope.dimension_sections")
    layers, recurrent = _gguf_layers(keys)
    v_heads = keys.whole("ssm.time_step_rank")
    return read_gguf_sizes(
        keys,
        **_FEATURES,
        n_layers=layers,
        **_delta(
            recurrent,
            delta_k_heads=keys.whole("ssm.group_count"),
            delta_v_heads=v_heads,
            delta_k_dim=keys.whole("ssm.state_size"),
            delta_v_dim=keys.whole("ssm.inner_size") // max(1, v_heads),
            delta_conv=keys.whole("ssm.conv_kernel"),
            delta_head_order="tiled",
        ),
    )


def _logarithms(config: LlamaConfig, name: str, tensor: Tensor) -> Tensor:
    """Files have what softplus is multiplied by; and filters without a dimension of one."""
    if name.endswith(".A_log"):
        return torch.log(-tensor)
    return tensor.unsqueeze(1) if name.endswith(".conv1d.weight") and tensor.dim() == 2 else tensor


def _is_of_another_part(name: str, config: LlamaConfig) -> bool:
    layer = re.match(r"blk\.(\d+)\.", name)
    return int(layer[1]) >= config.n_layers if layer else name.startswith(("v.", "mm.", "mtp."))


QWEN35 = Architecture(
    title="Qwen3.5",
    hugging_face=HuggingFace(
        model_types=("qwen3_5", "qwen3_5_text"),
        names=_HF_NAMES,
        prefix="model.",
        nested_prefix="model.language_model.",
        read=_read,
        is_ignored=lambda name: is_table(name) or bool(_OTHER_PARTS.match(name)),
        convert=_distances,
    ),
    gguf=Gguf(
        architectures=("qwen35",),
        names=_GGUF_NAMES,
        read=_read_gguf,
        is_ignored=_is_of_another_part,
        convert=_logarithms,
    ),
)
