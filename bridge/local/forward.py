"""Forward: a local TCP port or unix socket, each connection of which becomes a stream to one peer.

For clients in any language: they connect to a plain local address. At a TCP port other users of the machine are turned
away. Carries bytes only; no grpc here.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from punchbridge.errors import BridgeError, ConfigError, ConnectionLost, DialTimeout, NotAllowed, PortInUse, StreamReset
from punchbridge.events import ErrorEvent, LocalListening
from punchbridge.local.door import Door, open_door
from punchbridge.local.paths import open_on_path
from punchbridge.local.places import Place, parse_place
from punchbridge.local.pump import pump
from punchbridge.local.target import GRPC_PROTOCOL, PathPolicy, Target, check_protocol, parse_target
from punchbridge.tasks.supervise import supervise

if TYPE_CHECKING:
    from punchbridge.host.host import StreamHost
    from punchbridge.session import SessionStream
    from punchbridge.transport.base import Stream

__all__ = ["run"]

log = logging.getLogger(__name__)

_AT_ONCE = "; nothing came back: does the server behind the other side run?"


async def run(
    host: StreamHost,
    target: str | Target,
    bind: str,
    *,
    protocol: str = GRPC_PROTOCOL,
    path: PathPolicy = "any",
    direct_wait: float | None = None,
    max_connections: int | None = None,
    any_user: bool = False,
    task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listens on `bind` (HOST:PORT, port 0 for any, or unix:PATH) and carries each connection to the target.

    Runs until cancelled; reports the bound place once it listens. A connection whose stream cannot be opened is closed
    with RST and an `error` event; the listener goes on. direct_wait: seconds that the path "direct" waits for the
    punch, by default the host's. Beyond `max_connections`, by default `limits.local.forwarded`, clients wait in the
    backlog.
    A unix socket is for this user alone (mode 0600). At a TCP port connections of other users of this machine, except
    root, are closed with RST and told by `local.refused`; any_user lets them in. A place beyond loopback is open to
    other machines, which is logged as a warning.
    Cancellation closes the listener, resets the streams and removes the socket's file. Raises PortInUse and
    ConfigError when it cannot listen, or the kernel does not tell whose a connection is; AddressError for the target.
    """
    peer = parse_target(target)
    check_protocol(protocol)
    limits = host.swarm.config.limits.local
    slots = trio.CapacityLimiter(limits.forwarded if max_connections is None else max_connections)
    with _listen(parse_place(bind)) as (listener, bound), open_door(host, listener, bound, any_user=any_user) as door:
        async with trio.open_nursery() as nursery:

            async def carry(local: socket.socket) -> None:
                try:
                    stream = await _open(host, peer, protocol, path, direct_wait)
                except BridgeError as problem:
                    _tell(host, peer, problem)
                    return
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
                    _tell(host, peer, ConnectionLost(f"the connection broke under an opening stream: {problem}"))
                    return
                outcome = await pump(local, stream, limits)
                if outcome.problem is not None and (outcome.received == 0 or isinstance(outcome.problem, NotAllowed)):
                    _tell(host, peer, outcome.problem, _AT_ONCE if outcome.problem.code == StreamReset.code else "")

            async def carry_in_slot(local: socket.socket, slot: object) -> None:
                try:
                    # A fault in one connection costs that connection, not the listener.
                    await supervise("a forwarded connection", lambda: carry(local), lambda _: None)
                finally:
                    local.close()
                    slots.release_on_behalf_of(slot)

            host.swarm.events.emit(LocalListening(bind=str(bound)))
            task_status.started(bound)
            while True:
                slot = object()
                await slots.acquire_on_behalf_of(slot)
                local = await _accept(listener, door, limits.accept_pause)
                nursery.start_soon(carry_in_slot, local, slot)


def _tell(host: StreamHost, peer: Target, problem: BridgeError, hint: str = "") -> None:
    log.info("no stream to %s: %s", peer.text, problem)
    host.swarm.events.emit(ErrorEvent(code=problem.code, message=f"{problem}{hint}"))


async def _open(
    host: StreamHost, target: Target, protocol: str, path: PathPolicy, direct_wait: float | None
) -> Stream | SessionStream:
    seconds = host.times.open_path
    wait = host.times.direct_wait if direct_wait is None else direct_wait
    try:
        with trio.fail_after(seconds):
            return await open_on_path(host, target, protocol, path, direct_wait=wait, lazy=True)
    except trio.TooSlowError:
        raise DialTimeout(f"no stream to {target.text} within {seconds:g} s") from None


async def _accept(listener: trio.socket.SocketType, door: Door, pause: float) -> socket.socket:
    while True:
        try:
            accepted, _ = await listener.accept()
        except OSError as problem:
            if problem.errno in (errno.EBADF, errno.EINVAL):
                raise
            await trio.sleep(pause)
            continue
        local = socket.socket(fileno=accepted.detach())
        local.setblocking(False)
        if not door.admits(local):
            # RST: the other program must not take the end for an answer.
            with suppress(OSError):
                local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            local.close()
            continue
        if local.family != socket.AF_UNIX:
            local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return local


@contextmanager
def _listen(place: Place) -> Iterator[tuple[trio.socket.SocketType, Place]]:
    raw = _unix_listener(place.path) if place.path is not None else _tcp_listener(place)
    mine = os.stat(place.path).st_ino if place.path is not None else None
    try:
        bound = place if place.path is not None else Place(*raw.getsockname()[:2])
        with trio.socket.from_stdlib_socket(raw) as listener:
            yield listener, bound
    finally:
        if place.path is not None:
            _remove(place.path, mine)


def _tcp_listener(place: Place) -> socket.socket:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        raw = socket.socket(found[0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as problem:
        raise _cannot(place, problem) from None
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind(found[4])
        raw.listen(128)
    except OSError as problem:
        raw.close()
        if problem.errno == errno.EADDRINUSE:
            raise PortInUse(f"another program listens on {place}; choose another port, or 0 for any") from None
        raise _cannot(place, problem) from None
    return raw


def _unix_listener(path: str) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear_dead(path)
        # 0600 from the first moment: Linux gives the file the mode of the socket's own inode.
        os.fchmod(raw.fileno(), 0o600)
        raw.bind(path)
        raw.listen(128)
    except OSError as problem:
        raw.close()
        if problem.errno == errno.EADDRINUSE:
            raise PortInUse(f"another program listens on unix:{path}, or a file is there; choose another") from None
        raise _cannot(Place(path=path), problem) from None
    return raw


def _cannot(place: Place, problem: OSError) -> ConfigError:
    what = "a path in a folder that you may write to" if place.path is not None else "an address of this machine"
    if problem.errno in (errno.EACCES, errno.EPERM) and place.path is None:
        what = "a port above 1023"
    return ConfigError(f"cannot listen on {place}: {problem.strerror}; choose {what}")


def _clear_dead(path: str) -> None:
    """Removes the socket file that a killed program left: one that refuses connections."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except (FileNotFoundError, BlockingIOError):
        return


def _remove(path: str, inode: int | None) -> None:
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        pass  # Somebody else removed it.
