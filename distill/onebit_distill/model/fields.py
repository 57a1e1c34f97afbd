"""The fields of a `.obt` file's config in the order in which a file has them, with range and default: the list of
src/config/fields.json, once more because this package also works without its repository (a test compares the two)."""

from __future__ import annotations

import re
from typing import Any

from ..errors import DistillError

_CONTEXT, _WIDTH, _COUNT = 1 << 22, 1 << 16, 1024


def _integer(name: str, least: int, most: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "integer", "min": least, "max": most, **more}


def _number(name: str, above: float, most: float) -> dict[str, Any]:
    return {"name": name, "type": "number", "above": above, "max": most}


def _flag(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "boolean", **more}


def _choice(name: str, values: list[str], **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "choice", "values": values, **more}


#: A field with a default is a feature of the computation; a file leaves it out where it has its default.
FIELDS: list[dict[str, Any]] = [
    {"name": "architecture", "type": "text", "pattern": "^[a-z0-9][a-z0-9._-]{0,59}$"},
    _integer("vocab_size", 1, 1 << 20),
    _integer("dim", 1, _WIDTH),
    _integer("hidden_dim", 1, _WIDTH),
    _integer("n_layers", 1, _COUNT),
    _integer("n_heads", 1, _COUNT),
    _integer("n_kv_heads", 1, _COUNT),
    _integer("head_dim", 2, _COUNT, multiple_of=2),
    _integer("context_length", 1, _CONTEXT),
    _number("norm_eps", 1e-30, 1),
    _number("rope_theta", 1, 1e12),
    _choice("rope_style", ["half", "interleaved"]),
    {"name": "rope_scaling", "type": "rope_scaling"},
    _flag("tied_head"),
    {"name": "embedding", "type": "kind"},
    {"name": "head", "type": "kind"},
    {"name": "linears", "type": "kinds"},
    _choice("norm", ["rms", "layer"], default="rms"),
    _flag("norm_bias", default=False),
    _choice("positions", ["rotary", "learned"], default="rotary"),
    _integer("position_offset", 0, 1024, default=0),
    _integer("rope_dims", 2, _COUNT, multiple_of=2, default={"same_as": "head_dim"}),
    # files of before this field said it by their architecture alone
    _flag("qk_norm", default={"architecture_is": "qwen3"}),
    _flag("attention_inner_norm", default=False),
    _integer("window", 0, _CONTEXT, default=0),
    _flag("output_gate", default=False),
    _choice("feed_forward", ["gated", "plain"], default="gated"),
    _choice("activation", ["silu", "relu", "relu2", "gelu", "gelu_tanh"], default="silu"),
    _flag("ffn_inner_norm", default=False),
    _flag("parallel_residual", default=False),
    {"name": "delta_layers", "type": "layers", "default": []},
    _integer("delta_k_heads", 0, _COUNT, default=0),
    _integer("delta_v_heads", 0, _COUNT, default=0),
    _integer("delta_k_dim", 0, _COUNT, default=0),
    _integer("delta_v_dim", 0, _COUNT, default=0),
    _integer("delta_conv", 0, 16, default=0),
    _choice("delta_head_order", ["grouped", "tiled"], default="grouped"),
]

FEATURES = {field["name"]: field for field in FIELDS if "default" in field}

_BY_NAME = {field["name"]: field for field in FIELDS}


def config_error(problem: str) -> DistillError:
    return DistillError("ERR_CONFIG", f"model config: {problem}")


def default_of(name: str, architecture: str, head_dim: int) -> Any:
    """What one of FEATURES is where a file does not say it."""
    default = FEATURES[name]["default"]
    if not isinstance(default, dict):
        return default
    return head_dim if "same_as" in default else architecture == default["architecture_is"]


def _problem(field: dict[str, Any], value: Any) -> str | None:
    kind = field["type"]
    if kind == "text" and not (isinstance(value, str) and re.fullmatch(field["pattern"], value)):
        return f"must match {field['pattern']}"
    if kind == "boolean" and type(value) is not bool:
        return "must be true or false"
    if kind == "choice" and value not in field["values"]:
        return f"must be {' or '.join(field['values'])}"
    if kind == "layers":
        is_list = isinstance(value, list) and all(type(layer) is int and 0 <= layer < _COUNT for layer in value)
        if not is_list or any(a >= b for a, b in zip(value, value[1:])):
            return "must be a list of layers, ascending"
    if kind == "integer":
        if type(value) is not int or not field["min"] <= value <= field["max"]:
            return f"must be a whole number from {field['min']} to {field['max']}"
        if value % field.get("multiple_of", 1) != 0:
            return "must be even"
    if kind == "number":
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not field["above"] < value <= field["max"]:
            return f"must be a number above {field['above']:g} and at most {field['max']:g}"
    return None


def check_field(name: str, value: Any) -> None:
    """Type and range of a field that does not depend on others. Raises DistillError ERR_CONFIG."""
    problem = _problem(_BY_NAME[name], value)
    if problem is not None:
        raise config_error(f"{name} {problem}, found {value!r}")
