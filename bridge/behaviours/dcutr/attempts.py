"""One attempt as it unfolds, the connection that it ends with, and the events and the outcome that are made of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import trio

from punchbridge.addresses import Multiaddr
from punchbridge.events import PunchFailed, PunchStarted, PunchSucceeded, Role, TransportName
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.dials import RunDials
from punchbridge.reach.punching import PunchOutcome
from punchbridge.reach.verdict import Evidence, UdpEvidence
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection
from punchbridge.transport.tcp.simultaneous import How
from punchbridge.verdict import Code, Verdict

__all__ = ["Attempt", "Won", "failed", "started", "succeeded"]


@dataclass(frozen=True)
class Won:
    """A direct connection on which a round trip was made. `rtt`: seconds."""

    connection: Connection
    how: How | Literal["dial"]
    rtt: float | None


@dataclass
class Attempt:
    """One attempt. Exchange and opener fill it in; events and outcome are made from it."""

    peer: PeerId
    side: Role
    number: int
    """Within its run, from 1; 0 for the plain dial before the first exchange."""
    began: float
    run: int = 0
    spent: RunDials = field(default_factory=RunDials)
    """What its run has dialled so far."""
    local: tuple[Multiaddr, ...] = ()
    remote: tuple[Multiaddr, ...] = ()
    relay_rtt: float | None = None
    evidence: Evidence = field(default_factory=Evidence)
    """Of TCP."""
    udp: UdpEvidence = field(default_factory=UdpEvidence)
    tried: dict[TransportName, Code | None] = field(default_factory=dict)
    """The transports that were tried, each with its reason when it has failed."""
    told: bool = False
    """Its start was told, so that its end has to be told as well."""
    won: Won | None = None
    """Known here first: what is done behind a win may be cancelled, the connection stands."""
    detail: str = ""

    def seen(self) -> tuple[str, ...]:
        """What the system reported, of TCP before UDP."""
        return self.evidence.seen() + (self.udp.seen() if "quic" in self.tried else ())

    def transports(self, won: TransportName | None = None) -> dict[str, str]:
        """For the event: each transport that was tried, with DIRECT, the code by which it failed, or PENDING."""
        words: dict[str, str] = {name: code.value if code else "PENDING" for name, code in self.tried.items()}
        if won is not None:
            words[won] = "DIRECT"
        return words


def started(swarm: Swarm, attempt: Attempt) -> None:
    """Tells that both lists are known and the attempt begins."""
    attempt.told = True
    swarm.events.emit(
        PunchStarted(
            peer=peer_text(attempt.peer),
            attempt=attempt.number,
            side=attempt.side,
            local_candidates=tuple(map(str, attempt.local)),
            remote_candidates=tuple(map(str, attempt.remote)),
            relay_rtt_ms=_ms(attempt.relay_rtt),
        )
    )


def succeeded(swarm: Swarm, attempt: Attempt, won: Won) -> PunchOutcome:
    """Tells of a success and returns the outcome."""
    now = trio.current_time()
    elapsed = now - attempt.began
    transport = won.connection.transport
    swarm.events.emit(
        PunchSucceeded(
            peer=peer_text(attempt.peer),
            attempt=attempt.number,
            elapsed_ms=round(elapsed * 1000, 3),
            local=str(won.connection.local),
            remote=str(won.connection.remote),
            side=attempt.side,
            how=won.how,
            dials=attempt.udp.dials if transport == "quic" else attempt.evidence.dials,
            direct_rtt_ms=_ms(won.rtt),
            relay_rtt_ms=_ms(attempt.relay_rtt),
            transport=transport,
            transports=attempt.transports(transport),
        )
    )
    return PunchOutcome(
        attempt.peer,
        None,
        attempt.number,
        attempt.side,
        final=True,
        elapsed=elapsed,
        ended=now,
        how=won.how,
        connection=won.connection.id,
    )


def failed(swarm: Swarm, attempt: Attempt, code: Code, *, final: bool, retry_in: float | None = None) -> PunchOutcome:
    """Tells of a failed attempt and returns the outcome. Its verdict is made here, once."""
    now = trio.current_time()
    verdict = Verdict(code, attempt.seen(), attempt.detail, retry_in=retry_in, run=attempt.run)
    circuits = (one.id for one in swarm.connections(attempt.peer) if one.path == "relay")
    outcome = PunchOutcome(
        attempt.peer,
        verdict,
        attempt.number,
        attempt.side,
        final=final,
        elapsed=now - attempt.began,
        ended=now,
        circuit=max(circuits, default=None),
    )
    swarm.events.emit(
        PunchFailed(
            peer=peer_text(attempt.peer),
            attempt=attempt.number,
            verdict=verdict,
            side=attempt.side,
            elapsed_ms=round(outcome.elapsed * 1000, 3),
            final=final,
            transports=attempt.transports(),
            local_candidates=tuple(map(str, attempt.local)),
            remote_candidates=tuple(map(str, attempt.remote)),
        )
    )
    return outcome


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
