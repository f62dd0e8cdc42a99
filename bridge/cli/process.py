"""What a program sets of its own process when it starts, and a library must not: no core dump, all files it may open.

And how many connections those files leave room for. It knows no command.
"""

from __future__ import annotations

import logging
import resource
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from punchbridge.config import Limits

__all__ = ["fitted", "fitted_relay", "open_files", "prepare"]

log = logging.getLogger(__name__)

OTHER_FILES: Final = 128
"""Descriptors that no connection takes: listeners, dials under way, the runtime's own, sockets that are refused."""

_PR_SET_DUMPABLE: Final = 4


def prepare() -> None:
    """Switches core dumps off, since a core holds the identity key, and raises the soft limit of open files.

    Where a part of it is forbidden the program runs all the same.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A limit of 0 does not hold for cores that are piped to a program, as systemd-coredump (core(5)). This does, and
    # other processes of the same user can no longer read our memory or take our sockets from /proc.
    with suppress(OSError, ImportError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def open_files() -> int | None:
    """How many descriptors this process may open; None for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def fitted(limits: Limits, files: int | None) -> Limits:
    """The bounds of a bridge, as far as open files allow: half of them for connections, a quarter for streams served,
    an eighth for forwarded connections. A program that runs out of files would hear nobody at all."""
    if files is None:
        return limits
    room = _room(files)
    served = min(limits.local.served_streams, max(1, room // 4))
    local = replace(
        limits.local,
        served_streams=served,
        served_streams_per_peer=min(limits.local.served_streams_per_peer, served),
        forwarded=min(limits.local.forwarded, max(1, room // 8)),
    )
    found = replace(_with_connections(limits, max(1, room // 2)), local=local)
    if found != limits:
        log.info("%d open files are allowed: %d connections, %d streams served", files, found.swarm.connections, served)
    return found


def fitted_relay(limits: Limits, files: int | None) -> Limits:
    """The bounds of a relay, of which a connection is nearly all that takes a descriptor."""
    if files is None:
        return limits
    found = _with_connections(limits, _room(files))
    if found.swarm.connections < limits.swarm.connections:
        log.warning(
            "%d open files are allowed, so %d connections and not %d; raise the hard limit (ulimit -Hn)",
            files,
            found.swarm.connections,
            limits.swarm.connections,
        )
    return found


def _room(files: int) -> int:
    return max(files - OTHER_FILES, files // 2, 1)


def _with_connections(limits: Limits, most: int) -> Limits:
    asked = limits.swarm.connections
    return replace(limits, swarm=replace(limits.swarm, connections=min(asked, most) if asked else most))
