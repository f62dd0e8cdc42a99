"""Private files: whether others could have written or read one, reading with a bound, and replacing one as a whole.

The functions return what is wrong as a text, with what to do, so that each caller raises an error of its own. Nothing
here knows what a file holds.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

__all__ = ["add_file", "file_fault", "folder_fault", "make_folder", "read_private", "replace_file"]


def folder_fault(folder: Path) -> str | None:
    """Why others could put a file of theirs in the place of one in `folder`; None when they cannot.

    A folder in which others may write is safe with the sticky bit alone, as /tmp is. Raises OSError.
    """
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return f"the folder {folder} belongs to uid {status.st_uid}; choose one of your own"
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(status.st_mode)
        return f"other users can write in the folder {folder} (mode {mode:04o}); run: chmod go-w {folder}"
    return None


def file_fault(status: os.stat_result, path: Path, *, secret: bool) -> str | None:
    """Why a file is not to be trusted, or, when it is `secret`, who else can read it; None when nothing is wrong."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file; name another"
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to uid {status.st_uid}; run the command as that user, or chown the file"
    if status.st_mode & (0o077 if secret else 0o022):
        mode, what = stat.S_IMODE(status.st_mode), "600" if secret else "go-w"
        return f"it is open to other users (mode {mode:04o}); run: chmod {what} {path}"
    return None


def make_folder(folder: Path) -> None:
    """Makes the folder, with those above it, mode 0700. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_private(path: Path, limit: int, *, secret: bool) -> tuple[bytes, str | None]:
    """Up to `limit` + 1 bytes of a file, and its fault, with which there are no bytes.

    A pipe, or a device, is refused and never waited for. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        fault = file_fault(os.fstat(descriptor), path, secret=secret)
        return (b"" if fault else file.read(limit + 1)), fault


def replace_file(path: Path, data: bytes) -> None:
    """Puts a file with mode 0600 in the place of `path`, on disk when this returns: whole, or not at all.

    Raises OSError; then what was there is there still.
    """
    temporary = _written(path, data)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def add_file(path: Path, data: bytes) -> None:
    """As `replace_file`, where nothing is yet. Raises FileExistsError when something is, even a link to nothing."""
    temporary = _written(path, data)
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    _sync_folder(path.parent)


def _written(path: Path, data: bytes) -> str:
    """A file beside `path` that holds the data, on disk."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
