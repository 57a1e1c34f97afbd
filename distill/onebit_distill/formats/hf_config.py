"""Hugging Face's `config.json`, in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import DistillError
from ..model.config import QKV, ROLES, LlamaConfig, config_error
from ..model.rope import yarn_magnitude


def _unsupported(what: str) -> DistillError:
    hint = "Llama, Mistral, Qwen2 and Qwen3 can be teachers."
    return DistillError(
        "ERR_UNSUPPORTED_ARCHITECTURE", f"The teacher is of an architecture we do not know: {what}", hint
    )


def _hf_yarn(rope: dict[str, Any], context: int) -> dict[str, Any]:
    original = rope.get("original_max_position_embeddings") or context
    factor = rope.get("factor") or context / original
    if rope.get("truncate") is False:
        raise DistillError("ERR_UNSUPPORTED_ROPE", "config.json: yarn with truncate: false")
    attention = rope.get("attention_factor")
    if attention is not None and not attention > 0:
        raise DistillError("ERR_UNSUPPORTED_ROPE", f"config.json: yarn with attention_factor {attention!r}")
    mscale, mscale_all = rope.get("mscale"), rope.get("mscale_all_dim")
    if attention is None and mscale and mscale_all:
        attention = yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)
    return {
        "type": "yarn",
        "factor": factor,
        "original_context": original,
        "beta_fast": rope.get("beta_fast") or 32,
        "beta_slow": rope.get("beta_slow") or 1,
        "attention_factor": attention or 0,
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


def _window(root: dict[str, Any], model_type: str) -> int:
    """How many positions one sees, 0 for all. Mistral has a window unless it is null; a Qwen has one if it says so, in
    the layers from `max_window_layers` on or as `layer_types` lists them, and one in some layers only is not computed.
    """
    given = root.get("sliding_window", 4096) or 0
    if model_type == "mistral":
        if root.get("layer_types") is not None:
            raise _unsupported("mistral with layer_types")
        return given
    if model_type not in ("qwen2", "qwen3"):
        return 0
    window = given if root.get("use_sliding_window") is True else 0
    layers = root["num_hidden_layers"]
    full = root.get("max_window_layers", 28) if window else layers
    types = root.get("layer_types") or ["full_attention"] * min(full, layers) + ["sliding_attention"] * (layers - full)
    if set(types) == {"full_attention"}:
        return 0
    if window and set(types) == {"sliding_attention"}:
        return window
    raise _unsupported(f"{model_type} with a sliding window in some of its layers")


def _biases(root: dict[str, Any], model_type: str) -> tuple[str, ...]:
    if model_type == "qwen2":
        return QKV
    if model_type == "mistral":
        return ()
    attention = ROLES[:4] if root.get("attention_bias") is True else ()
    return (*attention, *(ROLES[4:] if root.get("mlp_bias") is True else ()))


@dataclass(frozen=True)
class _Defaults:
    """What transformers takes where a config.json of this type does not say it."""

    context: int
    #: None: as many as heads
    kv_heads: int | None = None
    #: None: dim / heads
    head_dim: int | None = None


_TYPES = {
    "llama": _Defaults(2048),
    "bitllama": _Defaults(2048),
    "mistral": _Defaults(131072, kv_heads=8),
    "qwen2": _Defaults(32768, kv_heads=32),
    "qwen3": _Defaults(32768, kv_heads=32, head_dim=128),
}


def config_from_hf(root: Any) -> LlamaConfig:
    """A Hugging Face `config.json`.

    Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_TENSOR_TYPE, ERR_CONFIG.
    """
    model_type = root.get("model_type") if isinstance(root, dict) else None
    if model_type not in _TYPES:
        raise _unsupported(repr(model_type)[:60])
    _check_hf_computation(root, model_type)
    defaults = _TYPES[model_type]
    try:
        heads, context = root["num_attention_heads"], root.get("max_position_embeddings") or defaults.context
        theta, scaling = _hf_rope(root, context)
        return LlamaConfig(
            architecture="llama" if model_type == "bitllama" else model_type,
            vocab_size=root["vocab_size"],
            dim=root["hidden_size"],
            hidden_dim=root["intermediate_size"],
            n_layers=root["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=root.get("num_key_value_heads", defaults.kv_heads) or heads,
            head_dim=root.get("head_dim") or defaults.head_dim or root["hidden_size"] // heads,
            context_length=context,
            norm_eps=root.get("rms_norm_eps") or 1e-6,
            rope_theta=theta,
            rope_scaling=scaling,
            tied_head=root.get("tie_word_embeddings") is True,
            biases=_biases(root, model_type),
            qk_norm=model_type == "qwen3",
            window=_window(root, model_type),
        )
    except KeyError as cause:
        raise config_error(f"config.json has no {cause.args[0]}") from cause
    except (TypeError, AttributeError, ZeroDivisionError) as cause:
        raise config_error(f"config.json: {cause}") from cause


def _type_of(config: LlamaConfig) -> str:
    """The model type that computes what this config does. Raises DistillError ERR_CONFIG if there is none."""
    for model_type, computes in (
        ("qwen3", config.qk_norm and config.biases in ((), ROLES[:4])),
        ("qwen2", not config.qk_norm and config.biases == QKV),
        ("mistral", not config.qk_norm and config.window > 0 and config.biases == ()),
        ("llama", not config.qk_norm and config.window == 0 and config.biases in ((), ROLES[:4], ROLES[4:], ROLES)),
    ):
        if computes:
            return model_type
    described = f"biases on {', '.join(config.biases) or 'nothing'}, {config.features() or 'no features'}"
    raise config_error(f"Hugging Face's config.json cannot say {described}")


def hf_config(config: LlamaConfig) -> dict[str, Any]:
    """What a `config.json` of a float32 model says. Raises DistillError ERR_UNSUPPORTED_ROPE, ERR_CONFIG."""
    scaling = dict(config.rope_scaling)
    kind = scaling.pop("type")
    if kind == "factors":
        raise DistillError("ERR_UNSUPPORTED_ROPE", "Hugging Face's config.json cannot say RoPE factors one by one")
    if "original_context" in scaling:
        scaling["original_max_position_embeddings"] = scaling.pop("original_context")
    if scaling.get("attention_factor") == 0:
        del scaling["attention_factor"]
    model_type = _type_of(config)
    windows = {}
    if config.window > 0:
        windows = {"sliding_window": config.window, "use_sliding_window": True, "max_window_layers": 0}
    return {
        "architectures": [f"{model_type.capitalize()}ForCausalLM"],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if kind == "none" else {"rope_type": kind, **scaling},
        "tie_word_embeddings": config.tied_head,
        "attention_bias": "wq" in config.biases,
        "mlp_bias": "w1" in config.biases,
        **windows,
        "torch_dtype": "float32",
    }
