"""What the relay grants and when it refuses: one frozen value, made from flags, each default with its reason.

Zero means unlimited wherever `RelayLimits` asks for a count, a rate or a size. Nothing here counts anything.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from punchbridge.config import SwarmLimits
from punchbridge.config.values import KIB, Bound, Bytes, Checked, Count, Seconds
from punchbridge.errors import ConfigError

if TYPE_CHECKING:
    from punchbridge.wire.circuit import CircuitLimit

U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1
"""What the protocol's Limit message carries: duration u32, data u64."""


@dataclass(frozen=True, kw_only=True)
class HopLimits(Checked):
    """How long the relay waits for clients and targets, and how it shares itself among circuits."""

    stranger_seconds: Seconds = 10.0
    """A peer that is on no list of a closed relay, and has had no circuit for this time, goes."""

    request_timeout: Seconds = 10.0
    """From the opening of a hop stream to its request: a client sends it at once (go: 60, rust: 60)."""

    stop_open_timeout: Seconds = 8.0
    """Opening the stop stream to a target that is connected: two round trips."""

    stop_answer_timeout: Seconds = 10.0
    """A target answers CONNECT without asking anybody (go: 10 on the target)."""

    answer_timeout: Seconds = 10.0
    """Writing one status to a client that may not read."""

    close_timeout: Seconds = 10.0
    """Closing a stream in good order after its answer; then it is reset."""

    stalled: Seconds = 60.0
    """A circuit ends whose bytes wait, and whose other end took none of them for this long. One without bytes may be
    idle for as long as it likes."""

    drain: Seconds = 5.0
    """Telling all connections at stop that no more streams are taken; the whole bound is `programs.drain`."""

    handlers: Count = 65536
    """Hop streams in all, circuits included: the limits of `relay` are the real bounds, this one ends a miscounting."""

    read: Bytes = 256 * KIB
    """One read of a circuit: a whole initial Yamux window."""

    turns: Count = 2
    """Reads of one circuit before other tasks get their turn: half a MiB, about 1 ms."""

    same_key_ping: Seconds = 5.0
    """The answer of the connection over which a peer reserved before, to tell two programs with one key from one that
    came back: above the round trips of satellites and of queues that are full."""

    notice_timeout: Seconds = 10.0
    """Telling one program of another one with its key: two round trips."""

    notices: Count = 64
    """Peers whose earlier connections are asked, and told, at once. What is beyond is asked at the next reservation."""

    notice_burst: Bound = 32
    """Earlier connections of one peer that are asked at once: a fleet that was started with one key by mistake."""

    notice_interval: Seconds = 10.0
    """Seconds until one more connection of that peer is asked."""

    rate_keys: Count = 16384
    """Peers or addresses with a token bucket, about 200 bytes each. Full buckets are forgotten first."""

    stats_circuits: Count = 64
    """Circuits listed in one relay.stats event; the totals count all of them."""


@dataclass(frozen=True, kw_only=True)
class RelayLimits(Checked):
    """The relay's bounds. Zero = unlimited, except `reservation_ttl` and what stands below `hop`.

    Raises ConfigError for senseless values.
    """

    reservations: Bound = 128
    """Reservations at once (go, rust: 128)."""

    reservations_per_address: Bound = 8
    """From one IPv4 address or IPv6 /64 (go: 8): homes hold few listeners, Sybils hold many."""

    reservations_per_56: Bound = 16
    """From one IPv6 /56, which a provider gives to one customer: 256 nets of the size above."""

    reservations_per_48: Bound = 32
    """From one IPv6 /48, the largest net that one site gets: three quarters are left to others."""

    reservation_ttl: Bound = 3600
    """Seconds (go, rust: 1 h). Clients refresh well before."""

    circuits: Bound = 1024
    """Circuits at once in all; each costs two streams and up to two buffers of 256 KiB."""

    circuits_per_peer: Bound = 16
    """Of one peer, counted apart as source and as target (go: 16)."""

    circuit_seconds: Bound = 120
    """A circuit's life, idle or not (go, rust: 2 min): time enough to punch."""

    circuit_bytes: Bound = 128 * KIB
    """Payload in each direction (go: 128 KiB): handshakes and a punch, not a download."""

    hop_streams: Bound = 2048
    """Requests under way at once, in all: those that are not yet a circuit, each about 20 KiB."""

    hop_streams_per_peer: Bound = 16
    """Requests under way at once from one peer (rust: 10 for each connection)."""

    hop_streams_per_address: Bound = 256
    """Requests under way at once from one IPv4 address or IPv6 /48; each may make its task wait for 10 s. Peer ids cost
    nothing."""

    peer_burst: Bound = 30
    """Reservations, and apart from them circuits, that one peer may ask for at once (rust: 30)."""

    peer_interval: Seconds = 0.2
    """Seconds until a peer has one more. A session over circuits of 128 KiB takes a fresh one each time a cap nears:
    five a second carry about half a MiB a second, and the counts above hold all the same (rust: 120 s)."""

    address_burst: Bound = 120
    """The same for one IPv4 address or IPv6 /64 (rust: 60): a carrier-grade NAT holds several peers."""

    address_interval: Seconds = 0.05
    """Seconds until an address has one more."""

    hop: HopLimits = HopLimits()
    """Waits and turns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in fields(self):
            given = getattr(self, item.name)
            if isinstance(given, int | float) and given > U64_MAX:
                raise ConfigError(f"{item.name} is {given}; give 0 (unlimited) for as much as that")
        if not 60 <= self.reservation_ttl <= U32_MAX:
            raise ConfigError(f"a reservation of {self.reservation_ttl} s; give at least 60, so that it can be renewed")
        if self.circuit_seconds > U32_MAX:
            raise ConfigError(f"circuits of {self.circuit_seconds} s; the protocol carries at most {U32_MAX}")

    @property
    def circuit_limit(self) -> CircuitLimit | None:
        """The limit that peers are told; None when a circuit is unlimited."""
        from punchbridge.wire.circuit import CircuitLimit  # brings libp2p; `--help` reads the defaults without it

        limit = CircuitLimit(self.circuit_seconds or None, self.circuit_bytes or None)
        return None if limit.unlimited else limit

    def swarm(self) -> SwarmLimits:
        """The bounds of the relay's swarm: so many connections that these limits can be reached at all.

        Each reservation and the source of each circuit is a connection of its own, and half of them may come anew at
        once. What is unlimited here is unlimited there. Whoever sets such a bound himself sets it over this value.
        """
        least = SwarmLimits()
        needed = self.reservations + self.circuits
        connections = max(least.connections, needed + needed // 2) if self.reservations and self.circuits else 0
        return replace(
            least,
            connections=connections,
            connections_per_address=_room(self.reservations_per_address, least.connections_per_address),
            connections_per_24=max(least.connections_per_24, connections // 4),
            connections_per_56=_room(self.reservations_per_56, least.connections_per_56),
            connections_per_48=_room(self.reservations_per_48, least.connections_per_48),
            half_open=max(least.half_open, self.reservations // 4),
            half_open_per_address=least.half_open_per_address if self.reservations_per_address else 0,
        )


def _room(reservations: int, least: int) -> int:
    """The connections of a source that may hold so many reservations; what is unlimited stays so."""
    return max(least, reservations + least // 2) if reservations else 0
