"""Which users of this machine may come to a local TCP port: our own and root.

Every user of a machine can connect to its loopback addresses, where a unix socket has an owner and a mode. So the
kernel is asked whose the other end of each connection is. It carries no byte and knows no stream.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from punchbridge.errors import ConfigError
from punchbridge.iana import kind_of, unmapped
from punchbridge.local.places import Place
from punchbridge.local.sock_diag import SockDiag, State

__all__ = ["Gone", "LocalUsers", "is_loopback"]

_OPEN: Final = frozenset((State.ESTABLISHED, State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSE_WAIT))
"""The states of a client's socket that a process may still hold: it has not closed, or one direction only."""

_ROOT: Final = 0


class Listener(Protocol):
    """A listening TCP socket, trio's or Python's own."""

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def getsockname(self) -> Any: ...


class Gone(Exception):
    """The client closed its socket before its user could be told."""


def is_loopback(host: str) -> bool:
    """Whether an IP address, zone and all, is reached from this machine alone."""
    return kind_of(unmapped(ip_address(host.partition("%")[0]))) == "loopback"


class LocalUsers:
    """Tells the users of the connections that a listener accepts. A context manager."""

    def __init__(self, listener: Listener, place: Place) -> None:
        """Tries it on the listener itself. Raises ConfigError when this kernel does not tell."""
        self._allowed = _allowed()
        try:
            self._diag = SockDiag()
        except OSError as problem:
            raise _untold(place, problem) from None
        try:
            name = listener.getsockname()
            found = self._diag.find(name, ("0.0.0.0" if listener.family == socket.AF_INET else "::", 0))
            if found is None or found.inode != os.fstat(listener.fileno()).st_ino or found.uid not in self._allowed:
                raise OSError(0, "it does not know the listening socket")
        except OSError as problem:
            self._diag.close()
            raise _untold(place, problem) from None

    def stranger(self, accepted: socket.socket) -> int | None:
        """The uid of another user who made the connection; None for one that may come.

        A connection from another machine may come: whoever listens beyond loopback wants that. Raises Gone, and
        OSError when the kernel does not tell.
        """
        try:
            ours, theirs = accepted.getsockname(), accepted.getpeername()
        except OSError:
            raise Gone from None
        found = self._diag.find(theirs, ours)
        if found is None:
            if is_loopback(theirs[0]):
                raise Gone
            return None
        # A socket that no process holds any more is said to be root's. And as long as ours stands, no other connection
        # can have the same two ends.
        if found.inode == 0 or found.state not in _OPEN or not _stands(accepted):
            raise Gone
        return None if found.uid in self._allowed else found.uid

    def __enter__(self) -> LocalUsers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._diag.close()


def _stands(accepted: socket.socket) -> bool:
    """Whether the connection has not been reset: its state is the first byte of struct tcp_info."""
    return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in (State.ESTABLISHED, State.CLOSE_WAIT)


def _allowed() -> frozenset[int]:
    """Our uid and root's. In a user namespace that does not know all users the unknown ones share one uid, which may
    be ours: then that is not let in."""
    own = os.geteuid()
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        whole = [int(one) for one in Path("/proc/self/uid_map").read_text().split()] == [0, 0, 2**32 - 1]
    except (OSError, ValueError):
        overflow, whole = 65534, False
    return frozenset((_ROOT, own)) if whole else frozenset((_ROOT, own)) - {overflow}


def _untold(place: Place, problem: OSError) -> ConfigError:
    return ConfigError(
        f"cannot tell which users connect to {place} ({problem.strerror}), and every user of this machine could; "
        "bind unix:PATH, or let all of them in with any_user (--any-user)"
    )
