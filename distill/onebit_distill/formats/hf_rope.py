"""How a config.json says which rotation a model has (src/import/hf-rope.ts)."""

from __future__ import annotations

from typing import Any

from ..errors import DistillError
from ..model.rope import yarn_magnitude


def _unsupported(problem: str) -> DistillError:
    return DistillError("ERR_UNSUPPORTED_ROPE", f"config.json: {problem}")


def _yarn(rope: dict[str, Any], context: int) -> dict[str, Any]:
    original = rope.get("original_max_position_embeddings") or context
    factor = rope.get("factor") or context / original
    if rope.get("truncate") is False:
        raise _unsupported("yarn with truncate: false")
    attention = rope.get("attention_factor")
    if attention is not None and not attention > 0:
        raise _unsupported(f"yarn with attention_factor {attention!r}")
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


def _scaling(rope: dict[str, Any], context: int) -> dict[str, Any]:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind in ("default", "none"):
        return {"type": "none"}
    if kind == "linear":
        return {"type": "linear", "factor": rope["factor"]}
    if kind == "llama3":
        named = {name: rope[name] for name in ("factor", "low_freq_factor", "high_freq_factor")}
        return {"type": "llama3", **named, "original_context": rope["original_max_position_embeddings"]}
    if kind == "yarn":
        return _yarn(rope, context)
    raise _unsupported(f"RoPE scaling of type {str(kind)[:40]!r}")


def hf_rope(root: dict[str, Any], context: int) -> tuple[float, dict[str, Any], float]:
    """Theta, scaling, and the share of each head that is rotated. `rope_scaling` of old configs and `rope_parameters`
    of new ones say the same in different places. Raises DistillError ERR_UNSUPPORTED_ROPE."""
    parameters = root.get("rope_parameters")
    rope = parameters or root.get("rope_scaling") or {}
    theta = (parameters or {}).get("rope_theta") or root.get("rope_theta") or 10000.0
    partial = rope.get("partial_rotary_factor") or root.get("partial_rotary_factor") or 1
    return theta, _scaling(rope, context), partial
