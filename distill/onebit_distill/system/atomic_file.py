"""Files that are there whole or not at all, as src/files/atomic-file.ts."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import DistillError

_CODES = {
    errno.ENOENT: ("ERR_NO_FOLDER", "its folder does not exist"),
    errno.ENOTDIR: ("ERR_NO_FOLDER", "a part of its path is no folder"),
    errno.EISDIR: ("ERR_IS_DIRECTORY", "is a folder"),
    errno.EACCES: ("ERR_ACCESS", "permission denied"),
    errno.EPERM: ("ERR_ACCESS", "permission denied"),
    errno.EROFS: ("ERR_READ_ONLY", "the file system is read-only"),
    errno.ENOSPC: ("ERR_DISK_FULL", "the disk is full"),
    errno.EDQUOT: ("ERR_DISK_FULL", "the disk quota is used up"),
}


def file_error(cause: OSError, path: str | os.PathLike, doing: str) -> DistillError:
    """An operating system's error as one of ours; doing: writing | reading."""
    code, problem = _CODES.get(cause.errno or 0, ("ERR_IO", cause.strerror or str(cause)))
    if doing == "reading" and code == "ERR_NO_FOLDER":
        code, problem = "ERR_FILE_NOT_FOUND", "no such file"
    return DistillError(code, f"{doing} {os.fspath(path)}: {problem}")


def _sync_folder(folder: Path) -> None:
    """A renamed file survives a power cut only when its folder is written too."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot, and there is nothing better to do on them
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Gives a temporary file beside `path`; it takes path's place when the block ends, and vanishes when it raises.

    Raises DistillError ERR_NO_FOLDER, ERR_IS_DIRECTORY, ERR_ACCESS, ERR_READ_ONLY, ERR_DISK_FULL, ERR_IO.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}-{secrets.token_hex(6)}")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        file = open(temporary, "xb")
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(target.parent)
    except OSError as cause:
        raise file_error(cause, path, "writing") from cause
