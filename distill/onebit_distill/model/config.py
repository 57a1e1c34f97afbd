"""The shape of a Llama or Qwen3: the fields a `.obt` file carries (src/config/architecture.ts), without its storage kinds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..errors import DistillError

ROLES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")

#: Hugging Face's names of the seven linears, within `model.layers.N.`
HF_LINEARS = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}

#: the engine's caps (LIMITS in src/config/architecture.ts)
_LIMITS = {
    "vocab_size": 1 << 20,
    "dim": 1 << 16,
    "hidden_dim": 1 << 16,
    "n_layers": 1024,
    "n_heads": 1024,
    "n_kv_heads": 1024,
    "head_dim": 1024,
    "context_length": 1 << 22,
}

_SCALING_FIELDS = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_context"),
    "yarn": ("factor", "original_context", "beta_fast", "beta_slow", "attention_factor"),
    "factors": ("factors",),
}


def config_error(problem: str) -> DistillError:
    return DistillError("ERR_CONFIG", f"model config: {problem}")


@dataclass(frozen=True)
class LlamaConfig:
    """RoPE rotates pairs (i, i + head_dim/2), as Hugging Face stores q and k; readers reorder other layouts.

    Raises DistillError ERR_CONFIG when a field is out of range or does not fit the others.
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
    #: llama, or qwen3 (RMSNorm on each head's q and k)
    architecture: str = "llama"
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    #: {"type": none | linear | llama3 | yarn | factors, …} with the fields of RopeScaling in src/config/architecture.ts
    rope_scaling: dict[str, Any] = field(default_factory=lambda: {"type": "none"})
    tied_head: bool = False
    #: which of ROLES have a bias
    biases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in ("llama", "qwen3"):
            raise config_error(f"architecture must be llama or qwen3, found {self.architecture!r}")
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise config_error(f"{name} must be a whole number from 1 to {most}, found {value!r}")
        if self.head_dim % 2 != 0:
            raise config_error(f"head_dim must be even, found {self.head_dim}")
        if self.n_heads % self.n_kv_heads != 0:
            raise config_error(f"n_kv_heads must divide n_heads {self.n_heads}, found {self.n_kv_heads}")
        for name, above, most in (("norm_eps", 0.0, 1.0), ("rope_theta", 1.0, 1e12)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= most:
                raise config_error(f"{name} must be above {above} and at most {most}, found {value!r}")
        if type(self.tied_head) is not bool:
            raise config_error(f"tied_head must be true or false, found {self.tied_head!r}")
        object.__setattr__(self, "biases", tuple(role for role in ROLES if role in self.biases))
        _check_scaling(self.rope_scaling, self.head_dim)

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

    def linear_shape(self, role: str) -> tuple[int, int]:
        """(out_features, in_features)"""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "wq": (q, self.dim),
            "wk": (kv, self.dim),
            "wv": (kv, self.dim),
            "wo": (self.dim, q),
            "w1": (self.hidden_dim, self.dim),
            "w2": (self.dim, self.hidden_dim),
            "w3": (self.hidden_dim, self.dim),
        }[role]

    @property
    def n_linear_weights(self) -> int:
        """Weights in the seven linears of all layers: what becomes 1-bit."""
        return self.n_layers * sum(math.prod(self.linear_shape(role)) for role in ROLES)


def _check_scaling(scaling: Any, head_dim: int) -> None:
    kind = scaling.get("type") if isinstance(scaling, dict) else None
    if kind not in _SCALING_FIELDS:
        raise config_error(f"rope_scaling.type must be one of {', '.join(_SCALING_FIELDS)}, found {kind!r}")
    expected = {"type", *_SCALING_FIELDS[kind]}
    if set(scaling) != expected:
        raise config_error(f"rope_scaling of type {kind} must have exactly the fields {', '.join(sorted(expected))}")
    if kind == "factors" and len(scaling["factors"]) != head_dim // 2:
        raise config_error(f"rope_scaling.factors must be {head_dim // 2} numbers")
    numbers = scaling["factors"] if kind == "factors" else [scaling[name] for name in _SCALING_FIELDS[kind]]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        raise config_error("rope_scaling must hold finite numbers")
