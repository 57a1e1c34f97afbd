"""Hugging Face's `config.json`, in both directions: reading it is the architectures' business, writing it is for
teachers that were made here, which are of Llama's family."""

from __future__ import annotations

from typing import Any

from ..errors import DistillError
from ..model.config import QKV, ROLES, LlamaConfig, config_error
from .architectures import known
from .architectures.architecture import HuggingFace


def config_from_hf(root: Any) -> LlamaConfig:
    """A Hugging Face `config.json`; raises as `described`."""
    return described(root)[0]


def described(root: Any) -> tuple[LlamaConfig, HuggingFace]:
    """What a `config.json` says, and the description of its architecture.

    Raises DistillError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_TENSOR_TYPE, ERR_CONFIG.
    """
    root = root if isinstance(root, dict) else {}
    found = known.hugging_face(root.get("model_type"), root.get("architectures"))
    try:
        return found.read(root), found
    except KeyError as cause:
        raise config_error(f"config.json has no {cause.args[0]}") from cause
    except (TypeError, AttributeError, ValueError, ZeroDivisionError) as cause:
        raise config_error(f"config.json: {cause}") from cause


def _type_of(config: LlamaConfig) -> str:
    """The model type that computes what this config does. Raises DistillError ERR_CONFIG if there is none."""
    plain = set(config.features()) <= {"qk_norm", "window"}
    for model_type, computes in (
        ("qwen3", config.qk_norm and config.biases in ((), ROLES[:4])),
        ("qwen2", not config.qk_norm and config.biases == QKV),
        ("mistral", not config.qk_norm and config.window > 0 and config.biases == ()),
        ("llama", not config.qk_norm and config.window == 0 and config.biases in ((), ROLES[:4], ROLES[4:], ROLES)),
    ):
        if plain and computes:
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
