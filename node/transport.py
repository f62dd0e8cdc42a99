"""What carries the message stream: gRPC calls on either side, and who is at their other end.

Here and in `punchbridge_node.node` only, gRPC is known. A stream hands out bytes, one message each; parsing is not
done here, so that malformed input ends in a typed error of ours and not in grpcio's log. Nothing here knows a payload
type.
"""

from __future__ import annotations

import asyncio
import ipaddress
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio

from punchbridge.addresses import address_group, endpoint_of, parse
from punchbridge.errors import NotBridged
from punchbridge.iana import unmapped

from . import fixed, wire
from .errors import HandshakeError, HandshakeFailure

# Both ends: the wire's largest message in, anything out. Give these to `grpc.aio.server` and the channel.
MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", fixed.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
)
SERVER_OPTIONS = MESSAGE_OPTIONS
# A proxy of the environment must not see peers; each peer wants its own connection, not a shared one.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

# What a read gives at the clean end of the peer's direction. (The stubs do not know it, nor BaseError's base.)
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
# Everything grpc.aio raises for a call that is over: the peer's status, ours, or use after its end.
STREAM_ERRORS: tuple[type[Exception], ...] = (
    grpc.RpcError,
    grpc.aio.BaseError,
    asyncio.InvalidStateError,
)
CHANNEL_ERRORS: tuple[type[Exception], ...] = (*STREAM_ERRORS, RuntimeError)


def _tcp() -> str:
    return "tcp"


@dataclass(frozen=True)
class PeerInfo:
    """Who is at the other end. `path` is asked for anew each time: it may change below a living stream.

    address: IP in text form, over the bridge a synthesized one, or None where there is none.
    peer_id: the authenticated libp2p peer id, None over plain TCP.
    path_of: gives "tcp", "relay" or "direct".
    multiaddr, observed: what the bridge knew besides at the time, for the peer store. live: where it is asked anew.
    """

    address: str | None = None
    port: int = 0
    peer_id: str | None = None
    path_of: Callable[[], str] = _tcp
    multiaddr: str | None = None
    observed: str | None = None
    live: ConnectInfo | None = None

    def refreshed(self) -> PeerInfo:
        """The same peer with its addresses as of now: a path that changed changes them too."""
        return self if self.live is None else from_connect_info(self.live)

    @property
    def path(self) -> str:
        """The path that carries the stream now."""
        return self.path_of()

    @property
    def origin(self) -> str | None:
        """The IPv4 address or IPv6 /64 that the peer is reached at; None over a relay, where none is seen."""
        host = self.address
        if self.peer_id is not None:
            direct = self.multiaddr if self.path == "direct" else None
            endpoint = None if direct is None else endpoint_of(parse(direct))
            host = None if endpoint is None else endpoint.host
        try:
            return None if host is None else address_group(host)
        except ValueError:  # a name, or the place of a unix socket
            return None

    @property
    def peer_key(self) -> str:
        """Who this is before any message: the peer id, or the address when no one vouches for more."""
        return self.peer_id or self.address or "unknown"

    def key_with(self, node_id: bytes) -> str:
        """The peer key once Version is known: the peer id whatever the address; over TCP node id and IP."""
        return self.peer_id or f"{node_id.hex()}@{self.address or 'unknown'}"


class ConnectInfo(Protocol):
    """The part of `punchbridge.ConnectInfo` used here: a live object, its `path` follows the connection."""

    @property
    def peer_id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def multiaddr(self) -> Any: ...
    @property
    def observed(self) -> Any: ...
    @property
    def address(self) -> tuple[str, int]: ...


class NotIdentified(Exception):
    """The server could not tell who called; the call is refused with UNAUTHENTICATED."""


Identify = Callable[[Any], PeerInfo]


def from_connect_info(info: ConnectInfo) -> PeerInfo:
    """The bridge's word for a peer as ours."""
    host, port = info.address
    return PeerInfo(
        address=host,
        port=port,
        peer_id=str(info.peer_id),
        path_of=lambda: str(info.path),
        multiaddr=None if info.multiaddr is None else str(info.multiaddr),
        observed=None if info.observed is None else str(info.observed),
        live=info,
    )


def identify_bridge(lookup: Callable[[Any], ConnectInfo | None]) -> Identify:
    """Identify by `punchbridge.peer`: `lookup` takes a servicer context. A caller it does not know is refused."""

    def identify(context: Any) -> PeerInfo:
        try:
            info = lookup(context)
        except (LookupError, NotBridged) as error:
            raise NotIdentified(str(error)) from error
        if info is None:
            raise NotIdentified("no bridge connection made this call")
        return from_connect_info(info)

    return identify


def identify_tcp(context: Any) -> PeerInfo:
    """Identify by `context.peer()`: an IP address, or nothing for a Unix socket."""
    return parse_grpc_peer(context.peer())


def parse_grpc_peer(text: str) -> PeerInfo:
    """`ipv4:1.2.3.4:5` or `ipv6:%5B::1%5D:5` as a PeerInfo; any other form has no address."""
    kind, _, rest = urllib.parse.unquote(text).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return PeerInfo()
    host, _, port = rest.rpartition(":")
    return tcp_peer(host.strip("[]").partition("%")[0], int(port) if port.isdecimal() else 0)


def tcp_peer(host: str, port: int) -> PeerInfo:
    """A peer over plain TCP. A mapped IPv4 address counts as IPv4; a name stays a name."""
    try:
        return PeerInfo(address=str(unmapped(ipaddress.ip_address(host))), port=port)
    except ValueError:
        return PeerInfo(address=host, port=port)


class Stream(Protocol):
    """One message stream to a peer, from either side."""

    outbound: bool

    async def open(self) -> None:
        """Before the first write, while reading goes on. Raises one of STREAM_ERRORS."""

    async def read(self) -> bytes | None:
        """The next message, or None at the peer's clean end. Raises one of STREAM_ERRORS."""

    async def write(self, data: bytes) -> None:
        """Send one message; waits while gRPC's flow control holds it. Raises one of STREAM_ERRORS."""

    async def finish(self) -> None:
        """End our direction, if this side can end it alone."""

    def cancel(self) -> None:
        """Drop the stream at once. Never raises."""


class ClientStream:
    """The dialler's side: a `grpc.aio` stream-stream call."""

    outbound = True

    def __init__(self, channel: Any) -> None:
        # No serializers: bytes in, bytes out.
        call = channel.stream_stream(wire.PATH, request_serializer=None, response_deserializer=None)
        self._call = call(compression=grpc.Compression.Gzip)

    async def open(self) -> None:
        """Nothing to do: the call was begun with the stream."""

    async def read(self) -> bytes | None:
        """See Stream."""
        data = await self._call.read()
        return None if data is EOF else bytes(data)

    async def write(self, data: bytes) -> None:
        """See Stream."""
        await self._call.write(data)

    async def finish(self) -> None:
        """Half-close: the server reads to the end and returns its status."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """See Stream."""
        self._call.cancel()


class ServerStream:
    """The listener's side: the context of a running handler. It ends when the handler returns."""

    outbound = False

    def __init__(self, context: Any) -> None:
        self._context = context

    async def open(self) -> None:
        """Send the response headers now. tonic's client sends nothing before it has them."""
        self._context.set_compression(grpc.Compression.Gzip)
        await self._context.send_initial_metadata(())

    async def read(self) -> bytes | None:
        """See Stream."""
        data = await self._context.read()
        return None if data is EOF else bytes(data)

    async def write(self, data: bytes) -> None:
        """See Stream."""
        await self._context.write(data)

    async def finish(self) -> None:
        """Nothing to do: a server ends its direction by returning."""

    def cancel(self) -> None:
        """Nothing to do: the handler returns."""


async def channel_ready(channel: Any, seconds: float) -> None:
    """Wait until the channel is connected, at most `seconds`.

    Raises HandshakeError(UNREACHABLE). Cancellation leaves the channel as it is; its owner closes it.
    """
    try:
        async with asyncio.timeout(seconds):
            await channel.channel_ready()
    except TimeoutError as error:
        raise HandshakeError(HandshakeFailure.UNREACHABLE, f"no connection within {seconds:g} s") from error
    except CHANNEL_ERRORS as error:
        raise HandshakeError(HandshakeFailure.UNREACHABLE, f"channel closed: {error}") from error


def add_handler(server: Any, behaviour: Callable[[Any, Any], Awaitable[None]]) -> None:
    """Register `/protowire.P2P/MessageStream` on a `grpc.aio.Server` that has not started."""
    handler = grpc.stream_stream_rpc_method_handler(behaviour, None, None)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: handler}),))
