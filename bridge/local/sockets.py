"""The private directory of unix sockets between gRPC and the pumps, and who may come through them.

One 0700 directory for each bridge. On the channel side we listen and ask the kernel for the other end's process
(SO_PEERCRED). On the server side gRPC listens; its socket's name is taken away as soon as it is bound, and pumps reach
it through the descriptor alone, so no other process finds a door. Nothing here knows gRPC, trio or a peer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import socket
import stat
import string
import struct
import tempfile
import time
from pathlib import Path

from punchbridge.errors import ConfigError
from punchbridge.files import folder_fault

__all__ = ["ServerDoor", "SocketDirectory", "peer_process"]

_SUN_PATH = 107
"""Bytes of a unix socket's name (unix(7): sun_path holds 108 with its closing zero)."""

_PREFIX = "punchbridge-"
_STALE = 60.0
"""Seconds after which a directory without a lock counts as left behind."""

_LONGEST_NAME = 1 + 1 + 32
"""A slash, one letter for the kind, 16 random bytes in hex."""

_SAFE = frozenset(string.ascii_letters + string.digits + "_/-.")
"""gRPC splits a unix target at commas and escapes spaces; /proc/net/unix shows names to everybody, so only tokens."""


def peer_process(connected: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process that connected to our listening unix socket (SO_PEERCRED, unix(7))."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", raw)
    return pid, uid


class SocketDirectory:
    """A fresh directory only its owner can enter; `close` removes it with everything in it (idempotent)."""

    def __init__(self) -> None:
        """Raises ConfigError when no directory with a short and plain enough name can be made."""
        self.path = _make()
        # The lock tells others that we live: it goes with the process, however that ends.
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # A file system without locks: then nobody sweeps there either.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sweep(os.path.dirname(self.path))

    def name(self, kind: str) -> str:
        """A random name in the directory; `kind` is one letter."""
        return f"{self.path}/{kind}{secrets.token_hex(16)}"

    def listen(self) -> tuple[socket.socket, str]:
        """A non-blocking listening socket and its name."""
        name = self.name("p")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(name)
            listener.listen(64)
        except OSError as problem:
            listener.close()
            raise ConfigError(f"cannot listen on a unix socket in {self.path}: {problem.strerror}") from None
        return listener, name

    def named_socket(self) -> tuple[socket.socket, str]:
        """A non-blocking socket bound to a name that is already gone from the directory.

        The other end's getpeername still tells the name: that is how a server's `context.peer()` tells one pump from
        another, and no file is left.
        """
        name = self.name("c")
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            end.bind(name)
            os.unlink(name)
        except OSError:
            end.close()
            raise
        return end, name

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class ServerDoor:
    """The way to a listening unix socket whose name has been removed: an O_PATH descriptor of its inode.

    A process with another uid cannot enter the directory. One of the same uid finds no name there; to come in it
    would have to open /proc/PID/fd of this process, which the kernel allows only to those who may trace it (proc(5)).
    `punchbridge.guard` refuses even those.
    """

    def __init__(self, name: str) -> None:
        """Takes the name away. Raises OSError when nothing is bound to it."""
        self._descriptor = os.open(name, os.O_PATH | os.O_CLOEXEC)
        through = f"/proc/self/fd/{self._descriptor}"
        try:
            if not stat.S_ISSOCK(os.stat(name).st_mode):
                raise ConfigError(f"{name} is not a socket")
            # Without /proc the name has to stay: the directory's mode is then all the protection there is.
            self._address = through if os.path.exists(through) else name
            if self._address == through:
                os.unlink(name)
        except BaseException:  # whatever it was, nobody else knows the descriptor
            os.close(self._descriptor)
            raise

    @property
    def address(self) -> str:
        """What to connect to, as of now. Raises OSError when the door is closed: the number of its descriptor may lead
        to another server by then."""
        if self._descriptor < 0:
            raise OSError(errno.ECONNREFUSED, "the server is not served any more")
        return self._address

    def close(self) -> None:
        """Closes the descriptor; idempotent. The server's socket lives on as long as the server holds it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sweep(parent: str) -> None:
    """Removes the directories that killed processes of ours left: those that nobody holds the lock of, and that hold
    sockets and nothing else. A folder of somebody else may have such a name too, so an empty one stays."""
    for path in glob.glob(f"{glob.escape(parent)}/{_PREFIX}*"):
        try:
            # A fresh one may not be locked yet.
            if os.lstat(path).st_uid != os.getuid() or time.time() - os.lstat(path).st_mtime < _STALE:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            names = os.listdir(lock)
            if names and all(
                stat.S_ISSOCK(os.stat(name, dir_fd=lock, follow_symlinks=False).st_mode) for name in names
            ):
                for name in names:
                    os.unlink(name, dir_fd=lock)
                os.rmdir(path)
        except OSError:
            pass  # In use.
        finally:
            os.close(lock)


def _make() -> str:
    wanted = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp makes it 0700
    seen: list[str] = []
    for parent in wanted:
        if not parent or not os.path.isabs(parent) or not _SAFE.issuperset(parent):
            continue
        try:
            if fault := folder_fault(Path(parent)):
                seen.append(fault)
                continue
            path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        except OSError as problem:
            seen.append(f"{parent}: {problem.strerror}")
            continue
        if len(path) + _LONGEST_NAME <= _SUN_PATH:
            return path
        os.rmdir(path)
        seen.append(f"{parent}: name too long for a unix socket")
    raise ConfigError(f"no place for the private socket directory ({'; '.join(seen)}); set TMPDIR to a short path")
