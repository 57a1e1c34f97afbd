"""Hugging Face's `config.json`, in both directions."""

from __future__ import annotations

from typing import Any

from ..errors import DistillError
from ..model.config import ROLES, LlamaConfig, config_error
from ..model.rope import yarn_magnitude


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
        attention = yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)
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
        raise config_error(f"config.json has no {cause.args[0]}") from cause
    except (TypeError, AttributeError, ZeroDivisionError) as cause:
        raise config_error(f"config.json: {cause}") from cause


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
    if {*config.biases} not in ({*ROLES[:4]}, {*ROLES[4:]}, {*ROLES}, set()):
        raise DistillError("ERR_CONFIG", f"Hugging Face's config.json cannot say biases on {', '.join(config.biases)}")
    qwen3 = config.architecture == "qwen3"
    return {
        "architectures": ["Qwen3ForCausalLM" if qwen3 else "LlamaForCausalLM"],
        "model_type": config.architecture,
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
        "torch_dtype": "float32",
    }
