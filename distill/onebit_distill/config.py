"""The shape of a Llama or Qwen3: the fields a `.obt` file carries (src/config/architecture.ts), without its storage kinds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .errors import DistillError

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


def _fail(problem: str) -> DistillError:
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
            raise _fail(f"architecture must be llama or qwen3, found {self.architecture!r}")
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise _fail(f"{name} must be a whole number from 1 to {most}, found {value!r}")
        if self.head_dim % 2 != 0:
            raise _fail(f"head_dim must be even, found {self.head_dim}")
        if self.n_heads % self.n_kv_heads != 0:
            raise _fail(f"n_kv_heads must divide n_heads {self.n_heads}, found {self.n_kv_heads}")
        for name, above, most in (("norm_eps", 0.0, 1.0), ("rope_theta", 1.0, 1e12)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= most:
                raise _fail(f"{name} must be above {above} and at most {most}, found {value!r}")
        if type(self.tied_head) is not bool:
            raise _fail(f"tied_head must be true or false, found {self.tied_head!r}")
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
            raise _fail(f"{unknown[0]} is not a known field")
        try:
            return cls(**values)
        except TypeError as cause:  # a field without a default is missing
            raise _fail(str(cause)) from cause

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
        raise _fail(f"rope_scaling.type must be one of {', '.join(_SCALING_FIELDS)}, found {kind!r}")
    expected = {"type", *_SCALING_FIELDS[kind]}
    if set(scaling) != expected:
        raise _fail(f"rope_scaling of type {kind} must have exactly the fields {', '.join(sorted(expected))}")
    if kind == "factors" and len(scaling["factors"]) != head_dim // 2:
        raise _fail(f"rope_scaling.factors must be {head_dim // 2} numbers")
    numbers = scaling["factors"] if kind == "factors" else [scaling[name] for name in _SCALING_FIELDS[kind]]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        raise _fail("rope_scaling must hold finite numbers")


def _unsupported(what: str) -> DistillError:
    hint = "Llama, Mistral without a sliding window, and Qwen3 can be teachers."
    return DistillError(
        "ERR_UNSUPPORTED_ARCHITECTURE", f"The teacher is of an architecture we do not know: {what}", hint
    )


def _hf_yarn(rope: dict[str, Any], context: int) -> dict[str, Any]:
    original = rope.get("original_max_position_embeddings") or context
    factor = rope.get("factor") or context / original
    if rope.get("truncate") is False:
        raise DistillError("ERR_UNSUPPORTED_ROPE", "config.json: yarn with truncate: false")
    attention = rope.get("attention_factor") or 0
    mscale, mscale_all = rope.get("mscale") or 0, rope.get("mscale_all_dim") or 0
    if attention == 0 and mscale != 0 and mscale_all != 0:
        magnitude = lambda scale: 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1  # noqa: E731
        attention = magnitude(mscale) / magnitude(mscale_all)
    return {
        "type": "yarn",
        "factor": factor,
        "original_context": original,
        "beta_fast": rope.get("beta_fast") or 32,
        "beta_slow": rope.get("beta_slow") or 1,
        "attention_factor": attention,
    }


def _hf_rope(root: dict[str, Any], context: int) -> tuple[float, dict[str, Any]]:
    """`rope_scaling` of old configs and `rope_parameters` of new ones say the same in different places."""
    parameters = root.get("rope_parameters")
    rope = parameters or root.get("rope_scaling") or {}
    theta = (parameters or {}).get("rope_theta") or root.get("rope_theta") or 10000.0
    if (rope.get("partial_rotary_factor") or root.get("partial_rotary_factor") or 1) != 1:
        raise DistillError("ERR_UNSUPPORTED_ROPE", "config.json: partial_rotary_factor other than 1")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind in ("default", "none"):
        return theta, {"type": "none"}
    if kind == "linear":
        return theta, {"type": "linear", "factor": rope["factor"]}
    if kind == "llama3":
        named = {name: rope[name] for name in ("factor", "low_freq_factor", "high_freq_factor")}
        return theta, {"type": "llama3", **named, "original_context": rope["original_max_position_embeddings"]}
    if kind == "yarn":
        return theta, _hf_yarn(rope, context)
    raise DistillError("ERR_UNSUPPORTED_ROPE", f"config.json: RoPE scaling of type {str(kind)[:40]!r}")


def _check_hf_computation(root: dict[str, Any], model_type: str) -> None:
    """Things that change the computation but not the tensors: ignoring them would be silently wrong."""
    act = root.get("hidden_act") or "silu"
    if act not in ("silu", "swish"):
        raise _unsupported(f"{model_type} with hidden_act {act!r}")
    if root.get("quantization_config") is not None:
        hint = "Give the original, unquantised model, or a GGUF of it."
        raise DistillError("ERR_UNSUPPORTED_TENSOR_TYPE", "config.json: the weights are quantised", hint)
    window = root.get("sliding_window")
    uses = window is not None if model_type == "mistral" else root.get("use_sliding_window") is True
    if uses:
        raise _unsupported(f"{model_type} with a sliding window of {window} tokens")


def config_from_hf(root: Any) -> LlamaConfig:
    """A Hugging Face `config.json`.

    Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_TENSOR_TYPE, ERR_CONFIG.
    """
    model_type = root.get("model_type") if isinstance(root, dict) else None
    if model_type not in ("llama", "qwen3", "mistral", "bitllama"):
        raise _unsupported(repr(model_type)[:60])
    _check_hf_computation(root, model_type)
    qwen3 = model_type == "qwen3"
    try:
        heads, context = root["num_attention_heads"], root.get("max_position_embeddings") or (32768 if qwen3 else 2048)
        theta, scaling = _hf_rope(root, context)
        attention = ROLES[:4] if root.get("attention_bias") is True else ()
        feed_forward = ROLES[4:] if root.get("mlp_bias") is True else ()
        return LlamaConfig(
            architecture="qwen3" if qwen3 else "llama",
            vocab_size=root["vocab_size"],
            dim=root["hidden_size"],
            hidden_dim=root["intermediate_size"],
            n_layers=root["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=root.get("num_key_value_heads") or heads,
            head_dim=root.get("head_dim") or (128 if qwen3 else root["hidden_size"] // heads),
            context_length=context,
            norm_eps=root.get("rms_norm_eps") or 1e-6,
            rope_theta=theta,
            rope_scaling=scaling,
            tied_head=root.get("tie_word_embeddings") is True,
            biases=(*attention, *feed_forward),
        )
    except KeyError as cause:
        raise _fail(f"config.json has no {cause.args[0]}") from cause
    except (TypeError, AttributeError, ZeroDivisionError) as cause:
        raise _fail(f"config.json: {cause}") from cause
