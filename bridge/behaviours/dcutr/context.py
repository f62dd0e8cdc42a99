"""What the two sides of a punch share: the swarm, candidates, the scope of allowed addresses, and the events.

Knows nothing of the order of messages; opener and answerer bring that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal

import trio

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of, is_relayed
from punchbridge.behaviours.dcutr.ground import Grounds
from punchbridge.behaviours.dcutr.policy import DcutrPolicy, PunchOutcome
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.events import ConnectionOpened, PunchFailed, PunchStarted, PunchSucceeded, Role
from punchbridge.identity import PeerId, peer_text
from punchbridge.limits.punch import (
    DCUTR_ATTEMPT_TIMEOUT,
    DCUTR_OBSERVED_TIMEOUT,
    MAX_CANDIDATES,
    MAX_PUNCH_DIALS,
    MAX_PUNCH_HOSTS,
)
from punchbridge.reach.candidates import RemoteCandidates, Scope, filter_remote, own_candidates
from punchbridge.reach.host_budget import HostBudget
from punchbridge.reach.verdict import Evidence
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.simultaneous import How
from punchbridge.verdict import Code, Verdict

__all__ = ["Facts", "PunchContext", "Won"]


_SOURCES: Final[tuple[tuple[int, Proto], ...]] = ((4, "tcp"), (6, "tcp"))
"""The IP versions and protocols that a punch can leave from."""


@dataclass(frozen=True)
class Won:
    """A direct connection on which a round trip was made. `rtt`: seconds."""

    connection: Connection
    how: How | Literal["dial"]
    rtt: float | None


@dataclass
class Facts:
    """One attempt as it unfolds; events and outcome are made from it."""

    peer: PeerId
    side: Role
    attempt: int
    began: float
    local: tuple[Multiaddr, ...] = ()
    remote: tuple[Multiaddr, ...] = ()
    relay_rtt: float | None = None
    evidence: Evidence = field(default_factory=Evidence)
    won: Won | None = None
    """Known here first: what is done behind a win may be cancelled, the connection stands."""
    detail: str = ""
    run: int = 0
    """The run of punches that the attempt belongs to."""


class PunchContext:
    """Shared by all punches of one node."""

    def __init__(self, swarm: Swarm, policy: DcutrPolicy) -> None:
        self.swarm = swarm
        self.policy = policy
        self.rng = random.Random()  # for pauses, not for secrets
        self.nursery: trio.Nursery
        self.observer = SecondObserver(swarm)
        self.grounds = Grounds(swarm)
        self.observed_news = trio.Event()
        self._dials = HostBudget(MAX_PUNCH_DIALS, DCUTR_ATTEMPT_TIMEOUT, MAX_PUNCH_HOSTS)
        self._mine: set[tuple[str, str]] = set()

    async def adopt(self, link: Link, role: Role, peer: PeerId) -> Connection:
        """Secures a link and has the swarm take it in; meanwhile `is_mine` knows the link. Raises as these do."""
        key = (str(link.local), str(link.remote))
        self._mine.add(key)
        try:
            return await self.swarm.adopt(await self.swarm.upgrader.upgrade(link, role=role, expected=peer))
        finally:
            self._mine.discard(key)

    def is_mine(self, opened: ConnectionOpened) -> bool:
        """True for a connection that a punch of ours is just making, so that it is not taken for somebody's dial."""
        return (opened.local, opened.remote) in self._mine

    def scope_for(self, connection: Connection) -> Scope:
        """Private addresses when the operator allows them; loopback only when the relay is on this machine."""
        if not self.swarm.config.allow_private:
            return Scope()
        hops = [connection.remote]
        if connection.relay is not None:
            hops += [other.remote for other in self.swarm.connections(connection.relay) if other.path == "direct"]
        endpoints = [endpoint_of(addr) for addr in hops]
        on_machine = any(e is not None and e.kind in ("ip4", "ip6") and e.ip.is_loopback for e in endpoints)
        return Scope(private=True, loopback=on_machine)

    def own_candidates(self, scope: Scope) -> tuple[Multiaddr, ...]:
        """Read at the moment CONNECT is sent (D16)."""
        swarm = self.swarm
        known = (*swarm.announced(), *swarm.listen_addrs())
        return own_candidates(
            swarm.observed.addresses(trio.current_time(), chosen=True),
            [addr for addr in known if not is_relayed(addr)],
            scope,
        )

    async def await_candidates(self, scope: Scope) -> tuple[Multiaddr, ...]:
        """Our candidates; waits a moment for the first observed address of the listening port."""
        with trio.move_on_after(DCUTR_OBSERVED_TIMEOUT):
            while not self.swarm.observed.addresses(trio.current_time(), chosen=True):
                if all(self.swarm.listen_port(version, proto) is None for version, proto in _SOURCES):
                    break
                await self.observed_news.wait()
        return self.own_candidates(scope)

    def filter(self, raw: tuple[bytes, ...], connection: Connection, scope: Scope) -> RemoteCandidates:
        own = (*self.swarm.listen_addrs(), *self.swarm.observed.addresses(trio.current_time(), chosen=True))
        return filter_remote(raw, peer=connection.peer, own=own, scope=scope)

    def announced_by(self, connection: Connection, scope: Scope) -> tuple[Multiaddr, ...]:
        """The peer's direct addresses from identify, filtered like candidates: for the dial before the punch (D2)."""
        told = connection.identify
        if told is None:
            return ()
        raw = tuple(addr.to_bytes() for addr in told.listen if not is_relayed(addr))
        return self.filter(raw[:MAX_CANDIDATES], connection, scope).accepted

    def may_dial(self, endpoint: Endpoint) -> bool:
        """Counts one dial of a punch to the endpoint's host; False when all punches together have made too many."""
        return self._dials.take(endpoint.place, trio.current_time())

    def reachable_at(self, candidates: tuple[Multiaddr, ...]) -> bool:
        """One of these needs no punch: an interface of this machine has it, or AutoNAT has confirmed it."""
        announced = set(self.swarm.announced())
        return any(addr in announced for addr in candidates)

    def circuit(self, peer: PeerId) -> int | None:
        """The id of the newest relayed connection to a peer."""
        return max((c.id for c in self.swarm.connections(peer) if c.path == "relay"), default=None)

    def source(self, endpoint: Endpoint) -> tuple[str, int] | None:
        """The listening (ip, port) to dial an endpoint from (D17)."""
        bound = self.swarm.listen_port(endpoint.ip.version, endpoint.proto)
        if bound is None:
            return None
        here = Endpoint(endpoint.kind, *bound, endpoint.proto)
        usable = here.ip.is_unspecified or here.ip.is_loopback == endpoint.ip.is_loopback
        return bound if usable else None

    def hosts_of_others(self, peer: PeerId) -> set[tuple[Proto, str]]:
        """The IPs at which we are directly connected with anybody else, by protocol."""
        others = (c for c in self.swarm.connections() if c.path == "direct" and c.peer != peer)
        return {endpoint.place for endpoint in (endpoint_of(c.remote) for c in others) if endpoint is not None}

    # --- telling ------------------------------------------------------------------------------------------

    def started(self, facts: Facts) -> None:
        self.swarm.events.emit(
            PunchStarted(
                peer=peer_text(facts.peer),
                attempt=facts.attempt,
                side=facts.side,
                local_candidates=tuple(map(str, facts.local)),
                remote_candidates=tuple(map(str, facts.remote)),
                relay_rtt_ms=_ms(facts.relay_rtt),
            )
        )

    def succeeded(self, facts: Facts, won: Won) -> PunchOutcome:
        """Emits the event of a success and returns the outcome."""
        elapsed = trio.current_time() - facts.began
        self.swarm.events.emit(
            PunchSucceeded(
                peer=peer_text(facts.peer),
                attempt=facts.attempt,
                elapsed_ms=round(elapsed * 1000, 3),
                local=str(won.connection.local),
                remote=str(won.connection.remote),
                side=facts.side,
                how=won.how,
                dials=facts.evidence.dials,
                direct_rtt_ms=_ms(won.rtt),
                relay_rtt_ms=_ms(facts.relay_rtt),
            )
        )
        return PunchOutcome(
            facts.peer,
            None,
            facts.attempt,
            facts.side,
            final=True,
            elapsed=elapsed,
            ended=trio.current_time(),
            how=won.how,
            connection=won.connection.id,
        )

    def failure(self, facts: Facts, code: Code, *, final: bool, retry_in: float | None = None) -> PunchOutcome:
        """Emits the event of a failed attempt and returns the outcome."""
        now = trio.current_time()
        verdict = Verdict(code, facts.evidence.seen(), facts.detail, retry_in=retry_in, run=facts.run)
        outcome = PunchOutcome(
            facts.peer,
            verdict,
            facts.attempt,
            facts.side,
            final=final,
            elapsed=now - facts.began,
            ended=now,
            circuit=self.circuit(facts.peer),
        )
        self.swarm.events.emit(
            PunchFailed(
                peer=peer_text(facts.peer),
                attempt=facts.attempt,
                verdict=verdict,
                side=facts.side,
                elapsed_ms=round(outcome.elapsed * 1000, 3),
                final=final,
                local_candidates=tuple(map(str, facts.local)),
                remote_candidates=tuple(map(str, facts.remote)),
            )
        )
        return outcome


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
