"""How a GGUF file says that a rotation is stretched (src/import/gguf-rope.ts). The rules are llama.cpp's."""

from __future__ import annotations

from typing import Any

from ..errors import DistillError
from ..model.rope import yarn_magnitude
from .gguf_keys import GgufKeys


def gguf_rope(keys: GgufKeys, context: int) -> dict[str, Any]:
    """A config's rope_scaling. Raises DistillError ERR_UNSUPPORTED_ROPE, ERR_BAD_SOURCE."""
    # 0 and nothing mean that positions stay as they are; a factor without a type is linear
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1)) or 1
    kind = keys.get("rope.scaling.type") or ("none" if factor == 1 else "linear")
    # llama.cpp multiplies the usual magnitude by attn_factor instead of replacing it
    attention = keys.number("rope.scaling.yarn_attn_factor", keys.number("rope.scaling.attn_factor", 1))
    yarn = {
        "type": "yarn",
        "factor": factor,
        "original_context": keys.whole("rope.scaling.original_context_length", context),
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1),
        "attention_factor": 0 if attention == 1 else attention * yarn_magnitude(factor),
    }
    if kind != "yarn":
        # cosines and sines are multiplied by it whatever the type is
        for key in ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"):
            keys.must_be(key, 1)
    keys.must_be("rope.scaling.yarn_ext_factor", 1)
    keys.must_be("rope.scaling.alpha", 0)
    keys.must_be("rope.scaling.yarn_log_multiplier", 0)
    if keys.rope_factors is not None:
        if kind not in ("none", "linear"):
            raise keys.bad(f"rope_freqs.weight together with RoPE scaling of type {kind}")
        stretched = [each * factor for each in keys.rope_factors] if kind == "linear" else keys.rope_factors
        return {"type": "factors", "factors": stretched}
    if kind == "none":
        return {"type": "none"}
    if kind == "linear":
        return {"type": "linear", "factor": factor}
    if kind != "yarn":
        raise DistillError("ERR_UNSUPPORTED_ROPE", f"{keys.path}: RoPE scaling of type {str(kind)[:40]!r}")
    return yarn
