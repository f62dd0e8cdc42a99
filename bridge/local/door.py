"""The door of a local port: lets this user and root in, and counts and tells of the others.

It decides nothing about peers, and carries no byte.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from punchbridge.events import LocalRefused
from punchbridge.local.places import Place
from punchbridge.local.users import Gone, LocalUsers, is_loopback

if TYPE_CHECKING:
    from punchbridge.host.host import StreamHost

__all__ = ["Door", "open_door"]

log = logging.getLogger(__name__)


class Door:
    """Asked about each accepted connection. Made by `open_door`."""

    def __init__(self, host: StreamHost, bound: Place, users: LocalUsers | None) -> None:
        """users: None lets everybody in."""
        self._host = host
        self._bound = bound
        self._users = users
        self._refused = 0
        self._silent_until = float("-inf")

    def admits(self, local: socket.socket) -> bool:
        """Whether the connection may come. One that may not is told by an event, once in a while."""
        if self._users is None:
            return True
        try:
            uid = self._users.stranger(local)
        except Gone:
            log.info("closed a connection to %s: its client was gone before its user could be told", self._bound)
            return False
        except OSError as problem:
            log.warning("closed a connection to %s: its user cannot be told: %s", self._bound, problem)
            return False
        if uid is None:
            return True
        self._refused += 1
        now = trio.current_time()
        if now >= self._silent_until:
            self._silent_until = now + self._host.swarm.config.limits.local.tell_refused
            log.info("refused a connection of uid %d to %s, %d until now", uid, self._bound, self._refused)
            self._host.swarm.events.emit(LocalRefused(bind=str(self._bound), uid=uid, refused=self._refused))
        return False


@contextmanager
def open_door(host: StreamHost, listener: trio.socket.SocketType, bound: Place, *, any_user: bool) -> Iterator[Door]:
    """The door of a listener: a unix socket has a mode and needs none. Raises ConfigError when the kernel does not tell
    the users of TCP connections."""
    if bound.path is None and not is_loopback(bound.host):
        log.warning("%s is no loopback address: whoever reaches it calls the exposed server as this peer", bound)
    if bound.path is not None or any_user:
        yield Door(host, bound, None)
        return
    with LocalUsers(listener, bound) as users:
        yield Door(host, bound, users)
