"""Opening a stream to a peer on the path that a policy allows, dialling it first where that is needed; and taking them.

A stream is a session where the peer knows sessions, else a plain libp2p stream. Decides between the connections that
the swarm has; it makes no connection itself and knows no gRPC. Deadlines are the caller's cancel scopes, except the
wait for a punch, which is bounded here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import trio

from punchbridge.access.policy import Access, Allow
from punchbridge.addresses import is_relayed, with_peer
from punchbridge.config import ANYONE
from punchbridge.errors import ConnectionLost, DirectRequired, NegotiationFailed, NotAllowed, Unreachable
from punchbridge.events import AccessOpen
from punchbridge.identity import PeerId, peer_text
from punchbridge.session import SessionStream
from punchbridge.transport.origin import origin_of
from punchbridge.verdict import Code, Verdict

if TYPE_CHECKING:
    from punchbridge.eventhub import Subscriber
    from punchbridge.host.host import StreamHost
    from punchbridge.local.target import PathPolicy, Target
    from punchbridge.transport.base import Connection, Stream

__all__ = [
    "StreamCarrier",
    "accept_streams",
    "carrier_of",
    "connection_of",
    "direct_connection",
    "open_on_path",
    "refuse_streams",
    "remote_peer",
    "wait_direct",
]


class StreamCarrier:
    """The carrier of a plain stream: its connection, for the whole life of the stream."""

    def __init__(self, stream: Stream) -> None:
        self._connection = stream.connection

    @property
    def path(self) -> Literal["direct", "relay"]:
        return self._connection.path

    moves = False

    @property
    def multiaddr(self) -> str:
        return str(with_peer(self._connection.remote, self._connection.peer))

    @property
    def observed(self) -> str | None:
        identified = self._connection.identify
        if identified is None or identified.observed is None or self.path == "relay":
            return None
        return str(identified.observed)

    @property
    def round_trip(self) -> float | None:
        return self._connection.rtt

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """A plain stream never moves: nothing to tell, nothing to end."""
        return _nothing


def _nothing() -> None:
    """The end of a subscription to nothing."""


def remote_peer(stream: Stream | SessionStream) -> PeerId:
    """The authenticated peer at the other end."""
    return stream.peer if isinstance(stream, SessionStream) else stream.connection.peer


def connection_of(stream: Stream | SessionStream) -> Connection | None:
    """The connection in use, or the last one of a session."""
    return stream.live.last if isinstance(stream, SessionStream) else stream.connection


def carrier_of(stream: Stream | SessionStream) -> SessionStream | StreamCarrier:
    """What a ConnectInfo reads its live fields from."""
    return stream if isinstance(stream, SessionStream) else StreamCarrier(stream)


async def accept_streams(
    host: StreamHost,
    protocol: str,
    handler: Callable[[Stream | SessionStream], Awaitable[None]],
    *,
    max_streams: int,
    max_per_peer: int,
    path: PathPolicy = "any",
    allow: Allow | None = None,
) -> None:
    """Hands streams of a protocol to `handler`, sessions and plain ones. Raises LocalError when it has one.

    path: plain streams on another path are reset, carriers of sessions refused with PATH_NOT_ALLOWED. allow: peer ids
    and networks that may open them beside those on the host's lists, or ANYONE; to others a plain stream is an unknown
    protocol, and a session is refused with NOT_ALLOWED. Raises ConfigError for a bad id.
    """
    gater = host.swarm.gater
    audience = gater.listed if allow is None else gater.also(Access.of(allow))
    if allow is ANYONE:
        host.swarm.events.emit(AccessOpen(protocol=protocol))

    async def plain(stream: Stream) -> None:
        if path not in ("any", stream.connection.path):
            peer = peer_text(stream.connection.peer)
            host.swarm.refusals.add("path_not_allowed", origin_of(stream.connection), peer)
            stream.abort()
            await trio.lowlevel.checkpoint()
            return
        await handler(stream)

    await host.swarm.handle(protocol, plain, max_streams=max_streams, max_per_peer=max_per_peer, audience=audience)
    host.sessions.serve(protocol, handler, path, max_sessions=max_streams, max_per_peer=max_per_peer, audience=audience)
    gater.serve(protocol, audience)


async def refuse_streams(host: StreamHost, protocol: str) -> None:
    """The end of `accept_streams`; streams that run go on. Idempotent."""
    host.swarm.gater.unserve(protocol)
    host.sessions.unserve(protocol)
    await host.swarm.unhandle(protocol)


async def open_on_path(
    host: StreamHost,
    target: Target,
    protocol: str,
    policy: PathPolicy,
    *,
    direct_wait: float,
    wait_direct: float = 0.0,
    lazy: bool = False,
) -> Stream | SessionStream:
    """Opens a stream of `protocol` to the target, on the best connection that the policy allows; a session moves on.

    wait_direct: with the policy "any", seconds to wait for a punch before a relayed connection will do.

    Raises Unreachable (or a subclass) when no address answers, DirectRequired with the punch's verdict, WrongPeer,
    RelayRefused, NegotiationFailed when the peer does not speak the protocol. Cancellation leaves no stream.

    lazy: for callers that send first. The proposal and their first bytes leave together, which spares a round trip;
    a refusal comes as NegotiationFailed from the first read.
    """
    if policy == "any" and wait_direct > 0:
        await _prefer_direct(host, target, wait_direct)
    connection = await _connection(host, target, policy, direct_wait)
    try:
        return await _open(host, connection, target, protocol, policy, lazy=lazy)
    except NotAllowed:
        raise
    except ConnectionLost:
        # It died between our look and our use (a peer that restarted); what the swarm has now is another one.
        connection = await _connection(host, target, policy, direct_wait)
        return await _open(host, connection, target, protocol, policy, lazy=lazy)


async def _prefer_direct(host: StreamHost, target: Target, wait: float) -> None:
    """Returns when a direct connection stands, when the punch has failed, or after `wait` seconds."""
    with trio.move_on_after(wait):
        try:
            await direct_connection(host, target, wait)
        except DirectRequired:
            return


async def _open(
    host: StreamHost, connection: Connection, target: Target, protocol: str, policy: PathPolicy, *, lazy: bool
) -> Stream | SessionStream:
    if target.secret is not None:
        await host.invitations.show(connection, target.secret)
    if await host.sessions.supported_by(connection):
        try:
            return await host.sessions.open(connection, protocol, route=target, policy=policy)
        except NotAllowed:
            host.invitations.forget(target.peer)  # it may have been struck out since; the next call shows the ticket
            raise
        except NegotiationFailed:
            # It may serve the protocol on plain streams all the same.
            pass
    return await connection.open_stream((protocol,), lazy=lazy)


async def _connection(host: StreamHost, target: Target, policy: PathPolicy, direct_wait: float) -> Connection:
    if policy == "direct":
        return await direct_connection(host, target, direct_wait)
    if policy == "relay":
        return await _relayed_connection(host, target)
    return await _any_connection(host, target)


async def _any_connection(host: StreamHost, target: Target) -> Connection:
    host.swarm.named_relays.add_targets(target.addrs)
    best = host.swarm.best(target.peer)
    if best is not None:
        return best
    if target.addr is None:
        raise Unreachable(f"not connected to {peer_text(target.peer)}, and no address was given; use its multiaddr")
    return await host.swarm.connect(target.peer, target.addrs)


async def direct_connection(host: StreamHost, target: Target, wait: float) -> Connection:
    """A direct connection: the one that stands, a dial of a direct address, or what a punch makes within `wait` s."""
    standing = _live(host, target.peer, "direct")
    if standing is not None:
        return standing
    direct = tuple(addr for addr in target.addrs if not is_relayed(addr))
    if direct and len(direct) == len(target.addrs):
        return await host.swarm.connect(target.peer, direct, path="direct")
    await _any_connection(host, target)
    return await wait_direct(host, target.peer, wait)


async def _relayed_connection(host: StreamHost, target: Target) -> Connection:
    standing = _live(host, target.peer, "relay")
    if standing is not None:
        return standing
    host.swarm.named_relays.add_targets(target.addrs)
    circuits = tuple(addr for addr in target.addrs if is_relayed(addr))
    if not circuits:
        raise Unreachable(f"no relayed connection to {peer_text(target.peer)}; give its circuit address")
    return await host.swarm.connect(target.peer, circuits, path="relay")


def _live(host: StreamHost, peer: PeerId, path: Literal["direct", "relay"]) -> Connection | None:
    """The newest live connection on the path."""
    return max((one for one in host.swarm.connections(peer) if one.path == path), key=lambda one: one.id, default=None)


async def wait_direct(host: StreamHost, peer: PeerId, wait: float) -> Connection:
    """The direct connection to a connected peer, awaited for at most `wait` seconds.

    Raises DirectRequired: with the verdict of a run of punches as soon as the whole run has failed, at the time-out
    with that of the last attempt (TIMEOUT when none has ended in that time, NO_RELAY when the peer is not connected),
    DISABLED at once when punching is off here. A run that had ended before the call answers only when no other can
    begin within `wait`. Cancellation leaves nothing behind.
    """
    standing = _live(host, peer, "direct")
    if standing is not None:
        return standing
    text = peer_text(peer)
    if host.dcutr is None:
        raise DirectRequired(f"no direct path to {text}", Verdict(Code.DISABLED))
    before = host.dcutr.last_outcome(peer)
    with trio.move_on_after(wait):
        return await host.dcutr.wait_direct(peer)
    if not host.swarm.connections(peer):
        advice = "Connect to the peer first: a punch is arranged over the connection."
        raise DirectRequired(f"no direct path to {text}, which is not connected", Verdict(Code.NO_RELAY, advice=advice))
    raise DirectRequired(f"no direct path to {text} within {wait:g} s", host.dcutr.verdict(peer, before))
