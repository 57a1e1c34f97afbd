"""What a study has found so far: a folder of JSON files, each there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DistillError
from ..system.atomic_file import file_error, writing_atomically


class Kept:
    """Raises DistillError: ERR_RESULT for a file that cannot be read, and those of writing files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise file_error(cause, folder, "writing") from cause

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        path = self.path(name)
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError) as cause:
            raise self.unreadable(name, cause) from cause

    def unreadable(self, name: str, cause: Exception) -> DistillError:
        message = f"{self.path(name)} cannot be read ({cause})"
        return DistillError("ERR_RESULT", message, "Delete the file: it is made again.")

    def write(self, name: str, value: dict[str, Any]) -> None:
        with writing_atomically(self.path(name)) as file:
            file.write(json.dumps(value).encode())

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` gave when it was first called for this name."""
        found = self.read(name)
        if found is None:
            found = make()
            self.write(name, found)
        return found
