"""Errors that a user can do something about."""

from __future__ import annotations


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
