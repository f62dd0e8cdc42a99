"""The identities that clients keep: who runs again is the same peer, and two programs at once are two peers.

A server admits a peer by its id, so a client that was let in must not come back as somebody else. The keys stand in a
private folder as 0.key, 1.key and so on; a program takes the first that no other program holds. Knows no connection.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from punchbridge.errors import IdentityError
from punchbridge.identity import Identity, load_or_create

__all__ = ["client_identity", "state_directory"]

_MOST: Final = 1024
"""Programs of one user at once that each have a kept identity."""


def state_directory() -> Path:
    """$XDG_STATE_HOME/punchbridge, or ~/.local/state/punchbridge. Raises IdentityError where there is no home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "punchbridge"
    try:
        return Path.home() / ".local" / "state" / "punchbridge"
    except RuntimeError:
        raise IdentityError("this user has no home directory; set HOME or XDG_STATE_HOME, or name a key file") from None


@contextmanager
def client_identity() -> Iterator[tuple[Identity, int]]:
    """The first kept identity that is free, and how many other programs have those before it, for the length of the
    block; one is made when all are taken.

    Blocks for a file. The lock goes with the process, however it ends. Raises IdentityError when the folder or a key in
    it cannot be used.
    """
    folder = state_directory() / "clients"
    for number in range(_MOST):
        path = folder / f"{number}.key"
        identity = load_or_create(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise IdentityError(f"cannot read the key file {path}: {problem.strerror}; check its owner") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another program holds it
            os.close(descriptor)
            continue
        try:
            yield identity, number
        finally:
            os.close(descriptor)
        return
    raise IdentityError(f"{_MOST} programs hold the identities in {folder}; give this one a key of its own (--key)")
