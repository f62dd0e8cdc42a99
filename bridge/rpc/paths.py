"""Opening a stream to a peer on the path that a policy allows, dialling it first where that is needed.

Decides between the connections that the swarm has; it makes no connection itself and knows no gRPC. Deadlines are the
caller's cancel scopes, except the wait for a punch, which is bounded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from bridge.addresses import is_relayed, with_peer
from bridge.errors import ConnectionLost, DirectRequired, Unreachable
from bridge.identity import PeerId, peer_text

if TYPE_CHECKING:
    from bridge.behaviours.host import Host
    from bridge.rpc.target import PathPolicy, Target
    from bridge.swarm.connection import Connection
    from bridge.swarm.stream import Stream

__all__ = ["StreamCarrier", "direct_connection", "open_on_path", "wait_direct"]


class StreamCarrier:
    """The carrier of a plain stream: its connection, for the whole life of the stream."""

    def __init__(self, stream: Stream) -> None:
        self._connection = stream.connection

    @property
    def path(self) -> Literal["direct", "relay"]:
        return self._connection.path

    @property
    def multiaddr(self) -> str:
        return str(with_peer(self._connection.remote, self._connection.peer))

    @property
    def observed(self) -> str | None:
        identified = self._connection.identify
        if identified is None or identified.observed is None or self.path == "relay":
            return None
        return str(identified.observed)


async def open_on_path(
    host: Host, target: Target, protocol: str, policy: PathPolicy, *, direct_wait: float, lazy: bool = False
) -> Stream:
    """Opens a stream of `protocol` to the target, on the best connection that the policy allows.

    Raises Unreachable (or a subclass) when no address answers, DirectRequired with the punch's verdict, WrongPeer,
    RelayRefused, NegotiationFailed when the peer does not speak the protocol. Cancellation leaves no stream.

    lazy: for callers that send first. The proposal and their first bytes leave together, which spares a round trip;
    a refusal comes as NegotiationFailed from the first read.
    """
    connection = await _connection(host, target, policy, direct_wait)
    try:
        return await connection.open_stream((protocol,), lazy=lazy)
    except ConnectionLost:
        # It died between our look and our use (a peer that restarted); what the swarm has now is another one.
        connection = await _connection(host, target, policy, direct_wait)
        return await connection.open_stream((protocol,), lazy=lazy)


async def _connection(host: Host, target: Target, policy: PathPolicy, direct_wait: float) -> Connection:
    if policy == "direct":
        return await direct_connection(host, target, direct_wait)
    if policy == "relay":
        return await _relayed_connection(host, target)
    return await _any_connection(host, target)


async def _any_connection(host: Host, target: Target) -> Connection:
    best = host.swarm.best(target.peer)
    if best is not None:
        return best
    if target.addr is None:
        raise Unreachable(f"not connected to {peer_text(target.peer)}, and no address was given; use its multiaddr")
    return await host.swarm.connect(target.peer, (target.addr,))


async def direct_connection(host: Host, target: Target, wait: float) -> Connection:
    """A direct connection: the one that stands, a dial of a direct address, or what a punch makes within `wait` s."""
    standing = _live(host, target.peer, "direct")
    if standing is not None:
        return standing
    if target.addr is not None and not is_relayed(target.addr):
        return await host.swarm.dial(target.addr, expected=target.peer)
    await _any_connection(host, target)
    return await wait_direct(host, target.peer, wait)


async def _relayed_connection(host: Host, target: Target) -> Connection:
    standing = _live(host, target.peer, "relay")
    if standing is not None:
        return standing
    if target.addr is None or not is_relayed(target.addr):
        raise Unreachable(f"no relayed connection to {peer_text(target.peer)}; give its circuit address")
    return await host.swarm.dial(target.addr, expected=target.peer, fresh=True)


def _live(host: Host, peer: PeerId, path: Literal["direct", "relay"]) -> Connection | None:
    """The newest live connection on the path."""
    return max((one for one in host.swarm.connections(peer) if one.path == path), key=lambda one: one.id, default=None)


async def wait_direct(host: Host, peer: PeerId, wait: float) -> Connection:
    """The direct connection to a connected peer, awaited for at most `wait` seconds.

    Raises DirectRequired: with the verdict as soon as a whole run of punches has failed, at the time-out with the code
    of the last attempt (TIMEOUT when none has ended), DISABLED at once when punching is off here. Cancellation leaves
    nothing behind.
    """
    standing = _live(host, peer, "direct")
    if standing is not None:
        return standing
    text = peer_text(peer)
    if host.dcutr is None:
        raise DirectRequired(f"no direct path to {text}, and punching is switched off here", "DISABLED")
    with trio.move_on_after(wait):
        return await host.dcutr.wait_direct(peer)
    outcome = host.dcutr.last_outcome(peer)
    code = "TIMEOUT" if outcome is None or outcome.code is None else outcome.code.value
    raise DirectRequired(f"no direct path to {text} within {wait:g} s: {code}", code)
