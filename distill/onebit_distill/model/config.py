"""What a model is: the fields of a `.obt` file's config without how its matrices are stored (src/config/config.ts)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .fields import FEATURES, FIELDS, check_field, config_error, default_of

ROLES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
#: of layers that mix by the delta rule, in the place of the first four
DELTA_ROLES = ("w_qkv", "w_z", "w_beta", "w_alpha", "w_out")
#: those with biases in Qwen2
QKV = ROLES[:3]

#: Hugging Face's names of Llama's linears, within `model.layers.N.`; a feed-forward of two matrices has no w3, and its
#: first one is called like the gate
HF_LINEARS = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
    "w_qkv": "linear_attn.in_proj_qkv",
    "w_z": "linear_attn.in_proj_z",
    "w_beta": "linear_attn.in_proj_b",
    "w_alpha": "linear_attn.in_proj_a",
    "w_out": "linear_attn.out_proj",
}

#: the engine's caps (src/config/limits.ts, src/config/rope.ts)
_WIDEST, _LONGEST = 1 << 16, 1 << 22
_LEAST_ROPE_NUMBER, _MOST_ROPE_NUMBER = 1e-6, 1e6

_SCALING_FIELDS = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_context"),
    "yarn": ("factor", "original_context", "beta_fast", "beta_slow", "attention_factor"),
    "factors": ("factors",),
}


@dataclass(frozen=True)
class LlamaConfig:
    """RoPE rotates pairs (i, i + head_dim/2), as Hugging Face stores q and k; readers reorder other layouts.

    Every feature that an engine's file can name is a field here, and `model.llama` computes by them alone. Raises DistillError ERR_CONFIG when a field is out of range or does not fit the others.
    """

    vocab_size: int
    #: width of the residual stream
    dim: int
    #: feed-forward width
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context_length: int
    #: where the model comes from; nothing is computed by it
    architecture: str = "llama"
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    #: {"type": none | linear | llama3 | yarn | factors, …} with the fields of RopeScaling in src/config/rope.ts
    rope_scaling: dict[str, Any] = field(default_factory=lambda: {"type": "none"})
    tied_head: bool = False
    #: which of ROLES have a bias
    biases: tuple[str, ...] = ()

    # features, as src/config/config.ts explains them; None: the default, which follows from other fields
    norm: str = "rms"
    norm_bias: bool = False
    positions: str = "rotary"
    position_offset: int = 0
    rope_dims: int | None = None
    #: RMSNorm of each head's q and k before they are rotated
    qk_norm: bool | None = None
    attention_inner_norm: bool = False
    #: a position sees itself and the window - 1 before it; 0: all before it
    window: int = 0
    output_gate: bool = False
    feed_forward: str = "gated"
    activation: str = "silu"
    ffn_inner_norm: bool = False
    parallel_residual: bool = False
    #: ascending; they mix by a gated delta rule (model/delta.py)
    delta_layers: list[int] = field(default_factory=list)
    delta_k_heads: int = 0
    delta_v_heads: int = 0
    delta_k_dim: int = 0
    delta_v_dim: int = 0
    #: tokens that the convolution in front of the rule sees, the newest among them
    delta_conv: int = 0
    #: which key head a value head h reads: grouped, h div (v_heads / k_heads); tiled, h mod k_heads
    delta_head_order: str = "grouped"

    def __post_init__(self) -> None:
        for name in (item["name"] for item in FIELDS if hasattr(self, item["name"])):
            if name in FEATURES and getattr(self, name) is None:
                object.__setattr__(self, name, default_of(name, self.architecture, self.head_dim))
            check_field(name, getattr(self, name))
        if self.n_heads % self.n_kv_heads != 0:
            raise config_error(f"n_kv_heads must divide n_heads {self.n_heads}, found {self.n_kv_heads}")
        most = _WIDEST // (2 if self.output_gate else 1)
        if self.n_heads * self.head_dim > most:
            raise config_error(f"n_heads x head_dim must be at most {most}, found {self.n_heads * self.head_dim}")
        self._check_positions()
        self._check_delta()
        object.__setattr__(self, "biases", tuple(role for role in self.roles() if role in self.biases))

    def _check_positions(self) -> None:
        """Numbers that belong to positions of the other sort must have their defaults."""
        _check_scaling(self.rope_scaling, self.rope_dims)
        if self.positions == "rotary":
            if self.position_offset != 0:
                raise config_error(f"position_offset must be 0 with rotary positions, found {self.position_offset}")
            if self.rope_dims > self.head_dim:
                raise config_error(f"rope_dims must be at most head_dim {self.head_dim}, found {self.rope_dims}")
        elif self.rope_dims != self.head_dim:
            raise config_error(f"rope_dims must be head_dim {self.head_dim} with learned positions")
        elif self.rope_scaling["type"] != "none":
            raise config_error("rope_scaling must be of type none with learned positions")

    def _check_delta(self) -> None:
        numbers = ("delta_k_heads", "delta_v_heads", "delta_k_dim", "delta_v_dim", "delta_conv")
        if not self.delta_layers:
            given = next((name for name in numbers if getattr(self, name) != 0), None)
            if given is not None or self.delta_head_order != "grouped":
                raise config_error(f"{given or 'delta_head_order'} must be left out without delta_layers")
            return
        absent = next((name for name in numbers if getattr(self, name) == 0), None)
        if absent is not None:
            raise config_error(f"{absent} must be at least 1 with delta_layers")
        if self.delta_layers[-1] >= self.n_layers:
            raise config_error(f"delta_layers names layer {self.delta_layers[-1]} of {self.n_layers}")
        if self.delta_v_heads % self.delta_k_heads != 0:
            raise config_error(f"delta_v_heads must be a multiple of delta_k_heads {self.delta_k_heads}")
        if self.delta_channels > _WIDEST:
            raise config_error(f"w_qkv would have {self.delta_channels} rows, at most {_WIDEST} are possible")

    def features(self) -> dict[str, Any]:
        """The features that differ from their defaults: what a file has to say."""
        values = {name: getattr(self, name) for name in FEATURES}
        return {
            name: value for name, value in values.items() if value != default_of(name, self.architecture, self.head_dim)
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives an equal config."""
        return {**asdict(self), "biases": list(self.biases)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LlamaConfig:
        """Raises DistillError ERR_CONFIG for unknown, missing or wrong fields."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise config_error(f"{unknown[0]} is not a known field")
        try:
            return cls(**values)
        except TypeError as cause:  # a field without a default is missing
            raise config_error(str(cause)) from cause

    def with_context(self, context_length: int) -> LlamaConfig:
        return replace(self, context_length=context_length)

    @property
    def delta_channels(self) -> int:
        """Queries, keys and values of all heads of a delta rule, one after the other."""
        return 2 * self.delta_k_heads * self.delta_k_dim + self.delta_v_heads * self.delta_v_dim

    def linear_shape(self, role: str) -> tuple[int, int]:
        """(out_features, in_features)"""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        inner = self.delta_v_heads * self.delta_v_dim
        return {
            "wq": (2 * q if self.output_gate else q, self.dim),
            "wk": (kv, self.dim),
            "wv": (kv, self.dim),
            "wo": (self.dim, q),
            "w1": (self.hidden_dim, self.dim),
            "w2": (self.dim, self.hidden_dim),
            "w3": (self.hidden_dim, self.dim),
            "w_qkv": (self.delta_channels, self.dim),
            "w_z": (inner, self.dim),
            "w_beta": (self.delta_v_heads, self.dim),
            "w_alpha": (self.delta_v_heads, self.dim),
            "w_out": (self.dim, inner),
        }[role]

    def roles(self, layer: int | None = None) -> tuple[str, ...]:
        """The linears of a layer; None: those that some layer has."""
        layers = range(self.n_layers) if layer is None else (layer,)
        deltas = sum(each in self.delta_layers for each in layers)
        attention = ROLES[:4] if deltas < len(layers) else ()
        feed_forward = ROLES[4:] if self.feed_forward == "gated" else ROLES[4:6]
        return (*attention, *feed_forward, *(DELTA_ROLES if deltas > 0 else ()))

    @property
    def n_linear_weights(self) -> int:
        """Weights in the linears of all layers."""
        roles = [role for layer in range(self.n_layers) for role in self.roles(layer)]
        return sum(math.prod(self.linear_shape(role)) for role in roles)


def _check_scaling(scaling: Any, rope_dims: int) -> None:
    kind = scaling.get("type") if isinstance(scaling, dict) else None
    if kind not in _SCALING_FIELDS:
        raise config_error(f"rope_scaling.type must be one of {', '.join(_SCALING_FIELDS)}, found {kind!r}")
    expected = {"type", *_SCALING_FIELDS[kind]}
    if set(scaling) != expected:
        raise config_error(f"rope_scaling of type {kind} must have exactly the fields {', '.join(sorted(expected))}")
    if kind == "factors":
        factors = scaling["factors"]
        if not isinstance(factors, (list, tuple)) or len(factors) != rope_dims // 2:
            raise config_error(f"rope_scaling.factors must be {rope_dims // 2} numbers")
        for factor in factors:
            _check_scaling_number("factors", factor)
    for name in _SCALING_FIELDS[kind]:
        if name != "factors" and not (name == "attention_factor" and scaling[name] == 0):
            _check_scaling_number(name, scaling[name])
    for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
        if low in expected and scaling[low] >= scaling[high]:
            raise config_error(f"rope_scaling.{low} must be below {high}")


def _check_scaling_number(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "original_context":
        if type(value) is not int or not 1 <= value <= _LONGEST:
            raise config_error(f"rope_scaling.{name} must be a whole number from 1 to {_LONGEST}, found {value!r}")
    elif not is_number or not _LEAST_ROPE_NUMBER < value <= _MOST_ROPE_NUMBER:
        limits = f"above {_LEAST_ROPE_NUMBER:g} and at most {_MOST_ROPE_NUMBER:g}"
        raise config_error(f"rope_scaling.{name} must be a number {limits}, found {value!r}")
