"""What happens at a relay, beside the events of every swarm: it listens, circuits open and close, counters rise.

Plain values, printed by `--json`. They know nothing of who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from punchbridge.events import Event


@dataclass(frozen=True, kw_only=True)
class RelayListening(Event):
    """The relay program accepts reservations. `addrs` end in /p2p/ID."""

    name = "relay.listening"
    peer_id: str
    addrs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RelayStats(Event):
    """The relay's counters. `bytes`: payload carried by all circuits; `refused`: how often each limit has turned
    somebody away since the start, `refused_from`: whom most often; `per_circuit`: the live ones."""

    name = "relay.stats"
    reservations: int
    circuits: int
    bytes_: int
    refused: Mapping[str, int] = field(default_factory=dict)
    per_circuit: tuple[Mapping[str, Any], ...] = ()
    refused_from: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CircuitOpened(Event):
    """The relay joined two peers."""

    name = "circuit.opened"
    circuit: int
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class CircuitClosed(Event):
    """A circuit ended. Bytes are counted per direction."""

    name = "circuit.closed"
    circuit: int
    source: str
    target: str
    reason: str
    bytes_to_target: int
    bytes_to_source: int
    seconds: float
