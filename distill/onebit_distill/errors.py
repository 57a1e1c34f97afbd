"""Errors that a user can do something about."""

from __future__ import annotations

from collections.abc import Mapping


class DistillError(Exception):
    """What was wrong, with a stable code and what to do about it.

    The command line prints these without a stack trace; anything else that is raised is a bug of ours.
    """

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        return f"{text}\n{self.hint}" if self.hint else text


def check_whole_numbers(options: object, least: Mapping[str, int], what: str = "") -> None:
    """Raises DistillError ERR_BAD_OPTION for fields of `options` that are no whole numbers from `least` on; what: said
    before their names."""
    for name, lowest in least.items():
        value = getattr(options, name)
        if type(value) is not int or value < lowest:
            message = f"{what}{name} must be a whole number from {lowest} on, found {value!r}"
            raise DistillError("ERR_BAD_OPTION", message)
