"""What a transport gives to the house: connections that are secured, muxed and authenticated, and their streams.

Declarations only. Everything above this room knows these protocols and no class that fulfils them, so that a transport
whose streams are its own (QUIC) stands beside those that share Noise and Yamux. go-libp2p's core/transport draws the
same line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, runtime_checkable

import trio

from punchbridge.addresses import Multiaddr
from punchbridge.errors import BridgeError, NotAllowed
from punchbridge.events import Path, Role, TransportName
from punchbridge.identity import PeerId
from punchbridge.reach.gauge import PathCounts
from punchbridge.transport.link import Link
from punchbridge.transport.raw import Buffer, InboxStream, RawStream
from punchbridge.wire.circuit import CircuitLimit
from punchbridge.wire.identify import IdentifyInfo

__all__ = [
    "NOT_ALLOWED",
    "Accept",
    "Connection",
    "Incoming",
    "OnRefused",
    "OnStream",
    "Reservation",
    "ReservingTransport",
    "ServingTransport",
    "Stream",
    "Supported",
    "Transport",
    "TransportName",
    "Upgrader",
]


NOT_ALLOWED: Final = NotAllowed.code
"""The one reason of a close that the peer is told."""


class Stream(InboxStream, RawStream, Protocol):
    """An ordered byte stream inside a connection, for one protocol. It can carry a circuit.

    Reads raise BrokenStream (a StreamReset) after a reset, BrokenConnection (a ConnectionLost) when the connection is
    gone, each behind what came before it, and return b"" only after the peer has ended its half. One task may read and
    one may write at a time.
    """

    unread_most: int
    """With more bytes than that unread it is reset. Every stream begins with what its window allows."""

    @property
    def connection(self) -> Connection:
        """What the stream belongs to."""
        ...

    @property
    def id(self) -> int:
        """The stream's number within its connection."""
        ...

    @property
    def protocol(self) -> str:
        """The protocol that was agreed; empty until then."""
        ...

    @property
    def inbound(self) -> bool:
        """The peer opened it."""
        ...

    @property
    def failure(self) -> BridgeError | None:
        """Why the stream ended, if it was not closed here or by the peer's end."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not taken."""
        ...

    def push_back(self, data: bytes) -> None:
        """Puts bytes back in front: they were read, but belong to what follows."""
        ...

    def send_parts(self, parts: Sequence[Buffer], size: int) -> int:
        """As `send_nowait`, for `size` bytes in parts."""
        ...

    def reset(self) -> None:
        """As `abort`."""
        ...


OnStream = Callable[[Stream, str], None]
"""Takes over an inbound stream, whose protocol is agreed. It must neither block nor raise."""
Supported = Callable[[], Collection[str]]
"""The protocols that the peer may open now."""
OnRefused = Callable[[str], None]
"""Learns of a protocol that the peer proposed and that was not among those. It must neither block nor raise."""


class Connection(Protocol):
    """A connection to one authenticated peer. It works while `run` runs. What has a value here is not set from outside,
    but for `identify`, and `punched` by whoever punched."""

    id: int
    """A number that no other connection of this process has; later ones have higher ones."""
    peer: PeerId
    """The peer, as the handshake proved it."""
    role: Role
    """Our part in the handshake."""
    inbound: bool
    """The peer asked for the connection. The role may be another: DCUtR swaps it."""
    path: Path
    """`relay` when it runs through one, else `direct`."""
    transport: TransportName
    """What carries it."""
    local: Multiaddr
    """Our address; of a circuit, the relay's with /p2p-circuit."""
    remote: Multiaddr
    """The peer's address; of a circuit, the relay's with /p2p-circuit/p2p/PEER. Over QUIC it may become another one."""
    relay: PeerId | None
    """The relay that it runs through."""
    follows: bool
    """It goes on by itself when an address of its path changes, and may be silent for a moment meanwhile."""
    limit: CircuitLimit | None
    """What the relay lets it carry; None when it does not say, and on a direct path."""
    attested: Multiaddr | None
    """Of a circuit: the address at which a relay that our user named saw the peer; else None."""
    punched: bool
    """A hole punch made it."""
    opened_at: float
    """When it was secured, by trio's clock."""
    identify: IdentifyInfo | None
    """What the peer told about itself; None until it has."""
    identified: trio.Event
    """Set once the peer has answered identify, or will not."""
    heard: trio.Event
    """Set once the peer has sent something above security: it had to read our part of the handshake for that."""
    closed: trio.Event
    """Set when it is over; `close_reason` says why."""
    close_reason: str
    """A stable word, such as NORMAL or CONNECTION_LOST; empty while it lives."""
    bytes_received: int
    """Bytes that came from what carries it."""

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to what carries it."""
        ...

    @property
    def rtt(self) -> float | None:
        """The round trip measured last, in seconds; until one is, the handshake's."""
        ...

    @property
    def rtt_least(self) -> float | None:
        """The shortest round trip that was measured; None before the first."""
        ...

    @property
    def counts(self) -> PathCounts | None:
        """What it has carried and lost, read anew each time; None of a circuit, whose losses are those of two paths,
        and where the system does not tell."""
        ...

    @property
    def streams(self) -> int:
        """Streams that have not ended on both sides."""
        ...

    @property
    def closing(self) -> bool:
        """It takes no more streams: closed, or one of the two sides has said goodbye."""
        ...

    async def run(
        self,
        on_stream: OnStream,
        supported: Supported,
        on_refused: OnRefused | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves the connection until it is closed; never raises for the peer's faults (see `close_reason`).

        `on_stream` is called for each inbound stream once its protocol, one of `supported()`, is agreed, and
        `on_refused` for each proposal that is none of them. Cancelling aborts the connection.
        """
        ...

    async def open_stream(self, protocols: Sequence[str], *, lazy: bool = False) -> Stream:
        """Opens a stream and agrees on the first of `protocols` that the peer supports, in one round trip.

        With `lazy`, and one protocol only, returns at once: data may follow the proposal without waiting, and a refusal
        surfaces as NegotiationFailed on the next read or write. Waits while too many own streams await their
        acceptance. Raises NegotiationFailed (none supported, or no answer in `negotiate_timeout`), ConnectionLost,
        StreamReset. Cancelling resets the stream.
        """
        ...

    async def ping(self) -> float:
        """One ping of the transport; the round trip in seconds. Raises ConnectionLost, LimitExceeded. No deadline of
        its own."""
        ...

    def prove(self) -> None:
        """A round trip was made on a connection that a punch has made: from now on it is closed as any other. Until
        then its end must leave nothing in the kernel that stands in the way of the next dial to the same endpoint."""
        ...

    def check_alive(self) -> None:
        """Raises ConnectionLost when the connection takes no more streams."""
        ...

    async def aclose(self, reason: str = "NORMAL") -> None:
        """Says goodbye, lets what is queued leave, and closes, all within `close_timeout`. With the reason NOT_ALLOWED
        the goodbye says that the peer is not let in: what it has open ends with ShutOut.

        Streams still open end with ConnectionLost. Cancelling closes at once, for every task that is closing it.
        """
        ...

    async def turn_away(self) -> None:
        """In the place of `run`: says that the peer is not let in, and closes, within `close_timeout`. Nothing that the
        peer sends is looked at."""
        ...

    def abort(self, reason: str) -> None:
        """Closes at once and ends every stream with ConnectionLost. The first reason stays."""
        ...


class Upgrader(Protocol):
    """Security and muxer over any byte stream: what the transports share that have no streams of their own."""

    async def upgrade(self, link: Link, *, role: Role, expected: PeerId | None) -> Connection:
        """Secures and muxes a link in the role given. `expected` is the peer that must be there; None accepts any.

        Raises DialTimeout after its `upgrade_timeout` seconds, AuthenticationFailed, WrongPeer, NegotiationFailed,
        ProtocolViolation or ConnectionLost. The link is cut on every failure and on cancellation.
        """
        ...


class Incoming(Protocol):
    """Somebody who asks for a connection, before a byte of it was read: the time to turn it away cheaply."""

    @property
    def host(self) -> str:
        """The IP that it comes from."""
        ...

    @property
    def room(self) -> int | None:
        """How many more files this process can open at least; None for no limit."""
        ...

    @property
    def silent(self) -> bool:
        """Whether not one byte has come from there yet, read or not. An initiator speaks first."""
        ...

    async def secure(self) -> Connection:
        """The connection. Raises as `Upgrader.upgrade`; nothing is left of a failed or cancelled one."""
        ...

    def abort(self) -> None:
        """Turns it away."""
        ...


Accept = Callable[[Incoming], None]
"""Takes an incoming connection over, synchronously: it is to be secured or aborted."""


class Transport(Protocol):
    """Makes connections. The swarm has a deadline of its own around every dial."""

    def handles(self, addr: Multiaddr) -> bool:
        """True when `dial` and `listen` understand the address."""
        ...

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        """A connection to the address, secured, muxed and authenticated; it does not run yet. `expected` is the peer
        that must be there, None accepts any. Raises BridgeError; a cancelled call leaves nothing open."""
        ...

    async def listen(self, addr: Multiaddr, accept: Accept) -> tuple[Multiaddr, ...]:
        """Makes us reachable through the address; returns once that is so, with the addresses to announce.

        `accept` takes over what comes in. A transport whose connections come in through other connections hands them
        to the swarm's `adopt` instead.
        """
        ...


class ServingTransport(Transport, Protocol):
    """A transport that accepts at ports of this machine, in tasks of its own."""

    nursery: trio.Nursery
    """For these tasks; set before `listen`, by whoever ends it."""

    def addrs(self) -> tuple[Multiaddr, ...]:
        """The bound addresses, wildcards expanded to what the interfaces have now; loopback last."""
        ...

    def port(self, version: int) -> tuple[str, int] | None:
        """The (ip, port) that dials of an IP version leave from; None when there is none."""
        ...

    def unlisten(self, addr: Multiaddr) -> None:
        """Accepts no more at a bound address, and closes its socket soon. Unknown ones are ignored."""
        ...

    def stop(self) -> None:
        """Accepts no more."""
        ...


class Reservation(Protocol):
    """A slot at a relay."""

    @property
    def relay(self) -> PeerId:
        """Who granted it."""

    @property
    def addrs(self) -> tuple[Multiaddr, ...]:
        """Our circuit addresses through that relay."""

    @property
    def expires(self) -> int:
        """UTC seconds."""


@runtime_checkable
class ReservingTransport(Transport, Protocol):
    """A transport whose listening is a reservation."""

    async def reserve(self, relay: Multiaddr) -> Reservation:
        """Returns once the relay accepted. Raises RelayRefused and as `dial`."""
