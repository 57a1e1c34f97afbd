"""JSON exactly as JavaScript's JSON.stringify writes it: a `.obt` header has one legal form, byte for byte."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ..errors import DistillError

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")


def _number(value: float) -> str:
    """ECMA-262, Number::toString: the shortest digits that give the number back, as in Python, laid out differently."""
    if not math.isfinite(value):
        raise DistillError("ERR_HEADER", f"{value} cannot be written as JSON")
    if value == 0:
        return "0"
    sign, number = ("-", -value) if value < 0 else ("", value)
    mantissa, _, exponent = f"{float(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"{sign}{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}{power}"


def _ordered(value: dict[str, Any]) -> list[str]:
    """A JavaScript object lists keys that are array indices first, ascending."""
    indices = [key for key in value if _INDEX.fullmatch(key) and int(key) < 2**32 - 1]
    return sorted(indices, key=int) + [key for key in value if key not in set(indices)]


def to_js_json(value: Any) -> str:
    """Raises DistillError ERR_HEADER for what JSON or the reader of `.obt` files does not take."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            raise DistillError("ERR_HEADER", "a text in the header is not valid Unicode")
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(to_js_json(item) for item in value)}]"
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value) or "__proto__" in value:
            raise DistillError("ERR_HEADER", "a field's name in the header must be a text other than __proto__")
        return "{" + ",".join(f"{to_js_json(key)}:{to_js_json(value[key])}" for key in _ordered(value)) + "}"
    raise DistillError("ERR_HEADER", f"a value of type {type(value).__name__} cannot be written as JSON")


def depth(value: Any) -> int:
    """0 for a scalar, 1 for a list of scalars."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return 0
    return 1 + max((depth(item) for item in value), default=0)
