"""The public API for trio programs: `punchbridge.open_trio`, streams dialled and accepted in the caller's own run.

The same bridge as the sync form, without a thread. No grpc here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import index
from typing import TYPE_CHECKING, Unpack

import trio

from punchbridge.access.policy import Allow
from punchbridge.addresses import Multiaddr
from punchbridge.api.configuration import configured
from punchbridge.api.snapshots import ConnectionInfo, Control, Status, open_control
from punchbridge.config import Config, Fields
from punchbridge.events import Event
from punchbridge.host.host import Host, StreamHost
from punchbridge.identity import PeerId, peer_text
from punchbridge.local.paths import accept_streams, carrier_of, open_on_path, refuse_streams, remote_peer
from punchbridge.local.peer import ConnectInfo
from punchbridge.local.target import PathPolicy, Target, check_policy, check_protocol, parse_target

if TYPE_CHECKING:
    from punchbridge.session import SessionStream
    from punchbridge.transport.base import Stream

__all__ = ["Acceptor", "BridgeStream", "TrioBridge", "open_trio"]

_ACCEPT_QUEUE = 16
"""Streams accepted but not yet taken by the loop; beyond it they count against the protocol's limits and wait."""


class BridgeStream(trio.abc.HalfCloseableStream):
    """A stream to a peer; `info` tells which and on what path. Used and closed like any trio stream."""

    def __init__(self, stream: Stream | SessionStream, protocol: str, read: int) -> None:
        """`read`: the most that `receive_some` returns when it is told no size."""
        self._stream = stream
        self._read = read
        self._closed = trio.Event()
        self.info = ConnectInfo(peer_text(remote_peer(stream)), protocol, carrier_of(stream))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """b"" is the peer's clean end; a reset raises StreamReset, a dead connection ConnectionLost."""
        return await self._stream.receive_some(self._read if max_bytes is None else index(max_bytes))

    def reset(self) -> None:
        """Ends both directions at once; the peer sees a reset, not an end."""
        self._stream.abort()
        self._closed.set()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._closed.set()

    async def wait_closed(self) -> None:
        """Until this side closed or reset the stream."""
        await self._closed.wait()


class Acceptor:
    """The inbound streams of one protocol, as an async iterator.

    Streams are taken from the first `__anext__` on, or from `async with`; its end (or the bridge's) stops taking and
    resets the streams that nobody took. Iterating raises LocalError when the protocol is handled already.
    """

    def __init__(
        self,
        host: StreamHost,
        protocol: str,
        max_streams: int | None,
        max_per_peer: int | None,
        path: PathPolicy,
        allow: Allow | None = None,
    ) -> None:
        self._host = host
        self._allow = allow
        self._protocol = protocol
        limits = host.swarm.config.limits.local
        self._read = limits.read
        self._limits = (
            limits.served_streams if max_streams is None else max_streams,
            limits.served_streams_per_peer if max_per_peer is None else max_per_peer,
        )
        self._path = path
        self._send, self._receive = trio.open_memory_channel[BridgeStream](_ACCEPT_QUEUE)
        self._starting = trio.Lock()
        self._taking = False
        self._over = False

    async def __aenter__(self) -> Acceptor:
        async with self._starting:
            if not self._taking and not self._over:
                total, per_peer = self._limits
                await accept_streams(
                    self._host,
                    self._protocol,
                    self._take,
                    max_streams=total,
                    max_per_peer=per_peer,
                    path=self._path,
                    allow=self._allow,
                )
                self._taking = True
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._over = True
        if self._taking:
            self._taking = False
            with trio.CancelScope(shield=True):
                await refuse_streams(self._host, self._protocol)
        try:
            while True:
                self._receive.receive_nowait().reset()
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            pass
        self._receive.close()
        self._send.close()

    def __aiter__(self) -> Acceptor:
        return self

    async def __anext__(self) -> BridgeStream:
        await self.__aenter__()
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StopAsyncIteration from None

    async def _take(self, stream: Stream | SessionStream) -> None:
        wrapped = BridgeStream(stream, self._protocol, self._read)
        try:
            await self._send.send(wrapped)
            await wrapped.wait_closed()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            stream.abort()  # Nobody takes any more.
        except trio.Cancelled:
            stream.abort()
            raise


class TrioBridge:
    """A running bridge inside the caller's trio run, made by `punchbridge.open_trio`."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.peer_id: str = control.peer_id

    @property
    def host(self) -> Host:
        """The host below, for `punchbridge.local.expose.run` and `punchbridge.local.forward.run`."""
        return self._control.host

    @property
    def addrs(self) -> tuple[str, ...]:
        """Our addresses as of now, circuits included, each ending in /p2p/ID."""
        return self._control.addrs()

    def labels(self, peer: str | PeerId) -> frozenset[str]:
        """The labels under which a peer stands on the lists of who may call, as of now. Raises AddressError."""
        return self._control.labels(peer)

    def connections(self) -> tuple[ConnectionInfo, ...]:
        return self._control.connections()

    def status(self) -> Status:
        """Our addresses, reservations, reachability and connections, as of now."""
        return self._control.status()

    async def invite(self, *, uses: int = 1, expires: float | None = None, label: str = "") -> str:
        """A ticket: a TARGET that lets in `uses` peers. As `punchbridge.Bridge.invite`."""
        return await self._control.invite(uses, expires, label)

    async def connect(self, target: str | Multiaddr | Target) -> ConnectionInfo:
        """Dials a peer if it is not connected. Raises Unreachable, WrongPeer, RelayRefused, …"""
        return await self._control.connect(parse_target(target))

    async def wait_direct(self, peer: str | Multiaddr, wait: float | None = None) -> ConnectionInfo:
        """The direct connection to a connected peer. wait: seconds, by default `times.direct_wait`.

        Raises DirectRequired with the verdict of the punch."""
        seconds = self.host.times.direct_wait if wait is None else wait
        return await self._control.wait_direct(parse_target(peer), seconds)

    async def wait_reservation(self, wait: float = 30.0) -> tuple[str, ...]:
        """Our circuit addresses, as soon as a relay gave us a reservation. Raises DialTimeout after `wait` s."""
        return await self._control.wait_reservation(wait)

    async def dial_stream(
        self,
        target: str | Multiaddr,
        protocol: str,
        *,
        path: PathPolicy = "any",
        direct_wait: float | None = None,
        wait_direct: float = 0.0,
    ) -> BridgeStream:
        """Opens a stream of `protocol` to a peer, dialled first if needed.

        Raises Unreachable, DirectRequired, WrongPeer, RelayRefused, NegotiationFailed. Put a deadline around it;
        cancellation leaves no stream.
        """
        stream = await open_on_path(
            self.host,
            parse_target(target),
            check_protocol(protocol),
            check_policy(path),
            direct_wait=self.host.times.direct_wait if direct_wait is None else direct_wait,
            wait_direct=wait_direct,
        )
        return BridgeStream(stream, protocol, self.host.swarm.config.limits.local.read)

    def accept_stream(
        self,
        protocol: str,
        *,
        max_streams: int | None = None,
        max_per_peer: int | None = None,
        path: PathPolicy = "any",
        allow: Allow | None = None,
    ) -> Acceptor:
        """Takes inbound streams of a protocol: `async for stream in b.accept_stream(id)`; those on `path` only. allow:
        who may open them beside the peers on this bridge's lists: peer ids and networks, or punchbridge.ANYONE.

        max_streams, max_per_peer: at once, by default `limits.local.served_streams` and `served_streams_per_peer`.
        Whoever takes a stream closes it; until then it counts against the limits. See `Acceptor` for its end.
        """
        return Acceptor(self.host, check_protocol(protocol), max_streams, max_per_peer, check_policy(path), allow)


@asynccontextmanager
async def open_trio(
    config: Config | None = None,
    *,
    events: Callable[[Event], None] | None = None,
    **fields: Unpack[Fields],
) -> AsyncIterator[TrioBridge]:
    """Opens a bridge inside the caller's trio run; the arguments and errors of `punchbridge.open`."""
    async with open_control(configured(config, fields), events) as control:
        yield TrioBridge(control)
