"""Where a session's peer may be found again, once it has no connection: every address that is known and may be dialled.

It lists addresses; it dials none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from punchbridge.addresses import Circuit, Multiaddr, circuit_of, endpoint_of, peer_of, with_peer, without_peer
from punchbridge.errors import AddressError
from punchbridge.identity import PeerId
from punchbridge.reach.candidates import Scope, filter_remote
from punchbridge.session.around import Around

if TYPE_CHECKING:
    from punchbridge.transport.base import Connection

__all__ = ["Route", "routes"]


class Route(Protocol):
    """A peer, and the addresses that it was looked for at first."""

    @property
    def peer(self) -> PeerId: ...

    @property
    def addrs(self) -> tuple[Multiaddr, ...]: ...


def routes(host: Around, route: Route, last: Connection | None) -> tuple[Multiaddr, ...]:
    """Every address the peer may be found at again: the first ones, the relays it told us of, and our own relays."""
    known = list(route.addrs)
    if last is not None and last.identify is not None:
        known += _told(host, route, last.identify.listen)
    for relay in host.relays():
        if peer_of(relay) is not None:
            known.append(with_peer(relay.encapsulate("/p2p-circuit"), route.peer))
    return tuple(dict.fromkeys(known))


def _told(host: Around, route: Route, listen: tuple[Multiaddr, ...]) -> list[Multiaddr]:
    """Circuits of the peer through relays that it names: those we are connected to, and else such as it might have us
    punch to. It must not aim our dials at this machine, at a LAN or at a crowd of strangers."""
    swarm = host.swarm
    circuits = {addr: circuit for addr in listen if (circuit := _circuit(addr)) is not None and circuit.relay_peer}
    raw = tuple(circuit.relay.to_bytes() for circuit in circuits.values())
    first = endpoint_of(route.addrs[0]) if route.addrs else None
    here = first is not None and first.on_loopback
    scope = Scope.chosen(swarm.config.allow_private, on_machine=here)
    limits = swarm.config.limits.punch
    own = swarm.listen_addrs()
    allowed = filter_remote(raw, peer=None, own=own, scope=scope, limits=limits).accepted
    return [
        with_peer(addr, route.peer)
        for addr, circuit in circuits.items()
        if without_peer(circuit.relay) in allowed or (circuit.relay_peer and swarm.connections(circuit.relay_peer))
    ]


def _circuit(addr: Multiaddr) -> Circuit | None:
    try:
        return circuit_of(addr)
    except AddressError:  # a circuit inside a circuit
        return None
