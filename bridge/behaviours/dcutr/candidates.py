"""The candidates of a punch: which of our addresses a peer is told, and which of the peer's we dare to dial.

It asks the swarm what it knows and lets `punchbridge.reach.candidates` judge. It sends nothing and dials nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final

import trio

from punchbridge.addresses import Multiaddr, Proto, address_group, endpoint_of, is_relayed
from punchbridge.reach.candidates import RULES, RemoteCandidates, Scope, filter_remote, own_candidates, with_ports_of
from punchbridge.reach.nat import endpoint_key
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection

__all__ = ["Candidates"]

_SOURCES: Final[tuple[tuple[int, Proto], ...]] = ((4, "tcp"), (6, "tcp"), (4, "udp"), (6, "udp"))
"""The IP versions and protocols that a punch can leave from."""


class Candidates:
    """The candidates of one node's punches. Whoever hears of an observed address announces it on `observed`."""

    def __init__(self, swarm: Swarm) -> None:
        self.observed = Signal()
        self.offered: tuple[Multiaddr, ...] | None = None
        """When set: what is offered in the place of the addresses that the node knows for its own."""
        self._swarm = swarm
        self._limits = swarm.config.limits.punch

    def scope_for(self, circuit: Connection) -> Scope:
        """Private addresses when the operator allows them; loopback only when the relay is on this machine."""
        hops = [circuit.remote]
        if circuit.relay is not None:
            hops += [other.remote for other in self._swarm.connections(circuit.relay) if other.path == "direct"]
        endpoints = [endpoint_of(addr) for addr in hops]
        on_machine = any(e is not None and e.on_loopback for e in endpoints)
        return Scope.chosen(self._swarm.config.allow_private, on_machine=on_machine)

    def own(self, scope: Scope) -> tuple[Multiaddr, ...]:
        """Our candidates; read at the moment CONNECT is sent (D16)."""
        if self.offered is not None:
            return self.offered
        known = (*self._swarm.announced(), *self._swarm.listen_addrs())
        listen = [addr for addr in known if not is_relayed(addr)]
        return own_candidates(self._seen(), listen, scope, self._limits.candidates)

    async def wait_own(self, scope: Scope) -> tuple[Multiaddr, ...]:
        """Our candidates; waits a moment for the first observed address of the listening port."""
        with trio.move_on_after(self._limits.observed_timeout):
            number = self.observed.number
            while not self._seen():
                if all(self._swarm.listen_port(version, proto) is None for version, proto in _SOURCES):
                    break
                number = await self.observed.beyond(number)
        return self.own(scope)

    def filter(self, raw: tuple[bytes, ...], circuit: Connection, scope: Scope) -> RemoteCandidates:
        """Which of the addresses in the peer's CONNECT are dialled."""
        own = (*self._swarm.listen_addrs(), *self._seen())
        found = filter_remote(raw, peer=circuit.peer, own=own, scope=scope, limits=self._limits)
        # TCP dials from any port where nothing listens; QUIC punches from the listening socket alone.
        return replace(found, accepted=tuple(filter(self._leads_out, found.accepted)))

    def _leads_out(self, addr: Multiaddr) -> bool:
        endpoint = endpoint_of(addr)
        if endpoint is None or endpoint.proto == "tcp":
            return True
        return self._swarm.listen_port(endpoint.ip.version, endpoint.proto) is not None

    def last_resort(self, raw: tuple[bytes, ...], circuit: Connection, scope: Scope) -> tuple[Multiaddr, ...]:
        """When none of the addresses in the peer's CONNECT may be dialled: its attested IPs with the ports of these. A
        peer that names none at all does not wait for a dial."""
        guesses = with_ports_of(raw, sorted(self.attested(circuit)), self._limits)
        return self.filter(tuple(addr.to_bytes() for addr in guesses), circuit, scope).accepted

    def announced_by(self, circuit: Connection, scope: Scope) -> tuple[Multiaddr, ...]:
        """The peer's direct addresses from identify, filtered like candidates: for the dial before the punch (D2)."""
        told = circuit.identify
        if told is None:
            return ()
        raw = tuple(addr.to_bytes() for addr in told.listen if not is_relayed(addr))
        return self.filter(raw[: len(RULES) * self._limits.candidates], circuit, scope).accepted

    def attested(self, circuit: Connection) -> frozenset[str]:
        """The IPs at which relays that our user named saw the peer. None of a peer that called us and is on no list."""
        if circuit.inbound and not self._swarm.gater.listed(circuit):
            return frozenset()
        scope = self.scope_for(circuit)
        named = [one.attested for one in self._swarm.connections(circuit.peer) if one.attested is not None]
        endpoints = [endpoint for endpoint in map(endpoint_key, named) if endpoint is not None]
        return frozenset(endpoint.host for endpoint in endpoints if scope.allows(endpoint.ip))

    def origin(self, circuit: Connection) -> Hashable:
        """Where the peer comes from, whatever it calls itself: its address as an attesting relay saw it, or that of
        its relay, or else the relay."""
        places = [circuit.attested] if circuit.attested is not None else []
        if circuit.relay is not None:
            places += [one.remote for one in self._swarm.connections(circuit.relay) if one.path == "direct"]
        for addr in places:
            endpoint = endpoint_key(addr)
            if endpoint is not None:
                return address_group(endpoint.host)
        return circuit.relay

    def reachable_at(self, candidates: tuple[Multiaddr, ...]) -> bool:
        """One of these needs no punch: an interface of this machine has it, or AutoNAT has confirmed it."""
        announced = set(self._swarm.announced())
        return any(addr in announced for addr in candidates)

    def _seen(self) -> tuple[Multiaddr, ...]:
        return self._swarm.observed.addresses(trio.current_time(), chosen=True)
