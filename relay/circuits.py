"""The table of circuits: who is joined to whom, bytes for each direction, caps, duration, totals.

Pure: it is told of bytes and clocks and says how many may pass; it owns no stream and resets nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from punchbridge.identity import PeerId, peer_text
from punchbridge.tasks.rates import Buckets
from punchbridge.wire.circuit import Status
from punchbridge_relay.access import Address, RelayAccess, address_key, network_key
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.refusal import HopRefusal


class Direction(Enum):
    """Of a circuit's bytes. The source asked for the circuit."""

    TO_TARGET = "to_target"
    TO_SOURCE = "to_source"


@dataclass(eq=False)
class Circuit:
    """One circuit. `passed`: payload bytes that were let through, for each direction."""

    id: int
    source: PeerId
    target: PeerId
    opened_at: float
    max_bytes: int
    origin: str = ""
    joined: bool = False
    passed: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))

    def take(self, direction: Direction, size: int) -> int:
        """Counts up to `size` bytes and returns how many may pass; fewer means that the limit cuts here (R4)."""
        if self.max_bytes:
            size = min(size, self.max_bytes - self.passed[direction])
        self.passed[direction] += size
        return size

    @property
    def bytes(self) -> int:
        return self.passed[Direction.TO_TARGET] + self.passed[Direction.TO_SOURCE]


class CircuitTable:
    """All circuits, and the rules for one more. A slot is held from `open` to `close`, joined or not."""

    def __init__(self, limits: RelayLimits, access: RelayAccess) -> None:
        self._limits = limits
        self._access = access
        self._next_id = 1
        self._table: dict[int, Circuit] = {}
        self._sources: dict[PeerId, int] = {}
        self._targets: dict[PeerId, int] = {}
        self._origins: Counter[object] = Counter()
        """Circuits asked for from a network: in all, and (with the target in the key) to one target."""
        self._closed_bytes = 0
        self.total = 0
        self._peer_rate = Buckets(limits.peer_burst, limits.peer_interval, limits.hop.rate_keys)
        self._address_rate = Buckets(limits.address_burst, limits.address_interval, limits.hop.rate_keys)

    def __len__(self) -> int:
        """Circuits that are joined now."""
        return sum(circuit.joined for circuit in self._table.values())

    def involves(self, peer: PeerId) -> bool:
        """Whether the peer is an end of a circuit, or of one that is being made."""
        return peer in self._sources or peer in self._targets

    def admit(self, source: PeerId, target: PeerId, ip: Address | None, now: float) -> None:
        """May the source ask for this circuit at all? Raises HopRefusal: PERMISSION_DENIED by access rule or when it
        is to itself, RESOURCE_LIMIT_EXCEEDED when it asks too often."""
        if not self._access.may_connect(source, ip):
            raise HopRefusal(Status.PERMISSION_DENIED, "connect_denied")
        if not self._peer_rate.take(source, now):
            raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "connect_rate_peer")
        if not self._address_rate.take(address_key(ip), now):
            raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "connect_rate_address")
        if source == target:
            raise HopRefusal(Status.PERMISSION_DENIED, "connect_self")

    def open(self, source: PeerId, target: PeerId, now: float, ip: Address | None = None) -> Circuit:
        """Takes a slot. Raises HopRefusal RESOURCE_LIMIT_EXCEEDED when there is none (R8).

        Peer ids cost nothing, so one IPv4 address or IPv6 /48 gets at most three quarters of all slots, and of those of
        one target: it cannot shut a listener off from everybody else.
        """
        limits, origin = self._limits, network_key(ip)
        if limits.circuits and len(self._table) >= limits.circuits:
            raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full")
        if limits.circuits_per_peer:
            if self._sources.get(source, 0) >= limits.circuits_per_peer:
                raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_source")
            if self._targets.get(target, 0) >= limits.circuits_per_peer:
                raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_target")
        for most, key in ((limits.circuits, origin), (limits.circuits_per_peer, (origin, target))):
            if ip is not None and most and self._origins[key] >= most - most // 4:
                raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_address")
        circuit = Circuit(self._next_id, source, target, now, limits.circuit_bytes, origin)
        self._next_id += 1
        self._table[circuit.id] = circuit
        self._sources[source] = self._sources.get(source, 0) + 1
        self._targets[target] = self._targets.get(target, 0) + 1
        self._origins.update((origin, (origin, target)))
        return circuit

    def join(self, circuit: Circuit, now: float) -> None:
        """The streams of the circuit are joined; its duration counts from here."""
        circuit.joined = True
        circuit.opened_at = now
        self.total += 1

    def close(self, circuit: Circuit) -> None:
        """Gives the slot back; its bytes stay in the total. Closing twice changes nothing."""
        if self._table.pop(circuit.id, None) is None:
            return
        self._closed_bytes += circuit.bytes
        for counts, peer in ((self._sources, circuit.source), (self._targets, circuit.target)):
            counts[peer] -= 1
            if not counts[peer]:
                del counts[peer]
        for key in (circuit.origin, (circuit.origin, circuit.target)):
            self._origins[key] -= 1
            if not self._origins[key]:
                del self._origins[key]

    @property
    def bytes(self) -> int:
        """Payload carried by all circuits since the start, both directions; it never steps back."""
        return self._closed_bytes + sum(circuit.bytes for circuit in self._table.values())

    def per_circuit(self, now: float) -> tuple[dict[str, Any], ...]:
        """The joined circuits as plain values, oldest first, at most `hop.stats_circuits`."""
        joined = [circuit for circuit in self._table.values() if circuit.joined][: self._limits.hop.stats_circuits]
        return tuple(
            {
                "circuit": circuit.id,
                "source": peer_text(circuit.source),
                "target": peer_text(circuit.target),
                "bytes_to_target": circuit.passed[Direction.TO_TARGET],
                "bytes_to_source": circuit.passed[Direction.TO_SOURCE],
                "seconds": round(now - circuit.opened_at, 3),
            }
            for circuit in joined
        )
