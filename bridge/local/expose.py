"""Expose: streams of a protocol, each spliced to a TCP or unix socket of a server on this side, in any language.

Carries bytes only; the server behind it sees a plain local connection and needs no bridge. On request each connection
begins with a PROXY header that tells who calls. No grpc here.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

import trio

from punchbridge.errors import ConfigError, ServerDown
from punchbridge.events import ErrorEvent
from punchbridge.identity import PeerId, peer_text
from punchbridge.local.gateway import connect_unix
from punchbridge.local.paths import accept_streams, connection_of, refuse_streams, remote_peer
from punchbridge.local.peer import synthesized_address
from punchbridge.local.places import Place, parse_place
from punchbridge.local.pump import Pumped, pump
from punchbridge.local.silent import Silent
from punchbridge.local.target import GRPC_PROTOCOL, check_protocol
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.wire.proxy import PP2_TYPE_PEER_ID, encode_proxy_header

if TYPE_CHECKING:
    from punchbridge.access.policy import Allow
    from punchbridge.host.host import StreamHost
    from punchbridge.session import SessionStream
    from punchbridge.transport.base import Stream
    from punchbridge.transport.raw import InboxStream

__all__ = ["caller_header", "run"]

log = logging.getLogger(__name__)


async def run(
    host: StreamHost,
    place: str,
    *,
    protocol: str = GRPC_PROTOCOL,
    proxy_protocol: bool = False,
    max_streams: int | None = None,
    max_per_peer: int | None = None,
    allow: Allow | None = None,
    task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Splices each inbound stream of `protocol` to a connection of its own to `place` (HOST:PORT or unix:PATH).

    proxy_protocol: each connection begins with a PROXY v2 header that names the caller, see `caller_header`.
    max_streams, max_per_peer: at once, by default `limits.local.served_streams` and `served_streams_per_peer`.
    allow: who may open such streams beside those on the host's lists.
    The server is connected to when the caller has sent something, or after `limits.local.first_byte`.
    Runs until cancelled; reports the place once streams are taken. While the server is down, streams are reset, each
    with an `error` event, and the next one tries again. Cancellation takes no more streams; those under way end with
    the host. Raises ConfigError for a malformed place, LocalError when the protocol is handled already.
    """
    behind = parse_place(place)
    if behind.path is None and behind.port == 0:
        raise ConfigError(f"{place!r} names no port to connect to")
    check_protocol(protocol)
    limits = host.swarm.config.limits.local
    server = _Behind(host, behind, proxy_protocol=proxy_protocol)
    await accept_streams(
        host,
        protocol,
        server.take,
        max_streams=limits.served_streams if max_streams is None else max_streams,
        max_per_peer=limits.served_streams_per_peer if max_per_peer is None else max_per_peer,
        allow=allow,
    )
    try:
        task_status.started(behind)
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limits.connect_timeout):
            await refuse_streams(host, protocol)


class _Behind:
    """The server behind, and what becomes of each stream for it."""

    def __init__(self, host: StreamHost, place: Place, *, proxy_protocol: bool) -> None:
        self._host = host
        self._place = place
        self._proxy_protocol = proxy_protocol
        self._limits = host.swarm.config.limits.local
        refusals = host.swarm.refusals
        self._silent = Silent(self._limits.silent, lambda peer: refusals.add("silent", "", peer_text(peer)))

    async def take(self, stream: Stream | SessionStream) -> None:
        """Carries one stream until it has ended. Cancelling resets it."""
        try:
            spoke = await _first_byte(stream, self._limits.first_byte)
        except NETWORK_FAILURES:
            stream.abort()
            return
        connection = connection_of(stream)
        named = connection is not None and self._host.swarm.gater.named(connection)
        with self._silent.place(None if spoke or named else remote_peer(stream)) as outcome:
            await self._carry(stream, outcome)
        stream.abort()

    async def _carry(self, stream: Stream | SessionStream, outcome: Pumped) -> None:
        try:
            local = await connect(self._place, self._limits.connect_timeout)
            if self._proxy_protocol:
                await _send_first(local, caller_header(remote_peer(stream), self._host.swarm.peer))
        except OSError as problem:
            text = f"cannot reach the server at {self._place}: {problem.strerror or problem}; does it run there?"
            log.info("%s", text)
            self._host.swarm.events.emit(ErrorEvent(code=ServerDown.code, message=text))
            stream.abort()
            return
        await pump(local, stream, self._limits, outcome=outcome)


async def _first_byte(stream: InboxStream, seconds: float) -> bool:
    """Whether the caller has sent something, its end included, within so many seconds. Raises when the stream broke."""
    try:
        with trio.move_on_after(seconds):
            while stream.receive_parts(0) is None:
                came = trio.Event()
                stream.on_readable = came.set
                await came.wait()
            return True
        return False
    finally:
        stream.on_readable = None


def caller_header(caller: PeerId, own: PeerId) -> bytes:
    """The PROXY v2 header of a connection: from the caller's synthesized address to ours, with the caller's peer id.

    The addresses are those of `ConnectInfo.address`: IPv6, made from the peer id, the same on every machine.
    """
    text = peer_text(caller)
    value = (PP2_TYPE_PEER_ID, text.encode())
    return encode_proxy_header(synthesized_address(text), synthesized_address(peer_text(own)), (value,))


async def _send_first(local: socket.socket, data: bytes) -> None:
    """Raises OSError, and closes the socket then and when cancelled. A fresh socket takes so little without a wait."""
    try:
        while data:
            await trio.lowlevel.wait_writable(local)
            data = data[local.send(data) :]
    except BaseException:
        local.close()
        raise


async def connect(place: Place, seconds: float) -> socket.socket:
    """A connected, non-blocking socket to the place. Raises OSError; TimeoutError or ETIMEDOUT after `seconds`."""
    if place.path is not None:
        path = place.path
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await connect_unix(local, lambda: path, seconds)
        except BaseException:  # cancellation too: nobody else knows the socket
            local.close()
            raise
        return local
    try:
        with trio.fail_after(seconds):
            stream = await trio.open_tcp_stream(place.host, place.port)
    except trio.TooSlowError:
        raise TimeoutError(None, f"no answer within {seconds:g} s") from None
    except OSError as problem:
        group = problem.__cause__
        # Several addresses (localhost has two): the last one's reason stands for all.
        last = group.exceptions[-1] if isinstance(group, ExceptionGroup) else problem
        if isinstance(last, OSError) and last.errno is not None and last.errno > 0:
            raise OSError(last.errno, os.strerror(last.errno)) from None
        raise
    taken = socket.socket(fileno=stream.socket.detach())
    taken.setblocking(False)
    taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return taken
