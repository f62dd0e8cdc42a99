"""Who may have one session more, and who makes room for it: the places of accepted sessions, by where they come from.

A session that was opened directly counts for its address and the nets around it, one that came over a relay for that
relay, whose callers' addresses nobody sees. When there is no place, sessions go in this order: those that have carried
nothing, those whose opener has sent nothing, those without a carrier, and at last those that stood still longest; each
time of whoever holds most. Somebody who holds no more than the newcomer would loses only what has been of no use for
`grace`, and nothing that carries. Strangers make room for listed peers, never the other way. Peer ids cost nothing, so
over a relay a peer id is no protection, and the relay's share stands above it. It ends no session itself, and knows no
stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from punchbridge.addresses import endpoint_of
from punchbridge.identity import PeerId, peer_text
from punchbridge.session.unused import Unused, is_unused
from punchbridge.sessions.budget import Budget
from punchbridge.tasks.prefixes import Places, PrefixBounds, Source, source

if TYPE_CHECKING:
    from punchbridge.config import SessionLimits
    from punchbridge.session.live import LiveSession
    from punchbridge.transport.base import Connection

__all__ = ["Claim", "SessionPlaces"]

_OVER: Final = "over "
"""What the word for a relay begins with, among those for addresses."""

Short = Literal[
    "sessions_per_peer",
    "sessions_of_service",
    "sessions_per_origin",
    "sessions_per_relay",
    "sessions_relayed",
    "sessions",
]
"""What there are too many of; refusals are counted under these words."""


@dataclass(frozen=True)
class Claim:
    """Who opens a session, and from where. listed: no stranger, but on the lists; strangers make room for such peers.

    `holder`: whom the place is charged to when places are shared out. `budget`: the word for those who share one part
    of the budget.
    """

    peer: PeerId
    where: Source
    relayed: bool
    listed: bool = False

    @classmethod
    def of(cls, connection: Connection, *, listed: bool) -> Claim:
        """The claim of whoever is behind a connection."""
        endpoint = endpoint_of(connection.remote) if connection.path == "direct" else None
        if endpoint is not None:
            return cls(connection.peer, source(endpoint.host), relayed=False, listed=listed)
        through = connection.peer if connection.relay is None else connection.relay
        return cls(connection.peer, (("address", _OVER + peer_text(through)),), relayed=True, listed=listed)

    @property
    def holder(self) -> PeerId | str:
        return self.peer if self.relayed else self.where[0][1]

    @property
    def budget(self) -> str:
        nets = dict(self.where)
        return nets.get("56", nets["address"])


class SessionPlaces:
    """The places of all accepted sessions of a host, oldest first. `budget`: what the buffers of all may hold."""

    def __init__(self, limits: SessionLimits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        bounds = PrefixBounds(address=limits.per_address, ipv6_56=limits.per_ipv6_56, ipv6_48=limits.per_ipv6_48)
        self._direct: Places[LiveSession] = Places(bounds)
        self._relayed: Places[LiveSession] = Places(PrefixBounds(all=limits.relayed, address=limits.per_relay))
        self._held: dict[LiveSession, Claim] = {}
        self._since: dict[LiveSession, float] = {}
        self._unused = {False: Unused(), True: Unused()}
        """By whether their openers are on the lists."""
        self._peers: Counter[PeerId] = Counter()
        self._shares: dict[str, tuple[Budget, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def short(self, claim: Claim, besides: int) -> Short | None:
        """What there is no place for, the narrowest bound first. besides: other sessions that count for the total."""
        if self._peers[claim.peer] >= self._limits.per_peer:
            return "sessions_per_peer"
        full = (self._relayed if claim.relayed else self._direct).full(claim.where)
        if full is not None:
            return "sessions_relayed" if full.step == "all" else self._origin(claim)
        return "sessions" if len(self) + besides >= self._limits.total else None

    def _origin(self, claim: Claim) -> Short:
        return "sessions_per_relay" if claim.relayed else "sessions_per_origin"

    def claim(self, session: LiveSession) -> Claim:
        """Who opened a session that holds a place."""
        return self._held[session]

    def first_to_go(
        self, claim: Claim, short: Short, service: Collection[LiveSession], now: float
    ) -> LiveSession | None:
        """The session whose end makes room for the claim; None when the claim has to be refused. service: the sessions
        of the service, which is what is short of places when `short` says so."""
        if short == "sessions_per_peer":
            return None  # it is the peer's own affair which of its sessions it ends
        table = self._relayed if claim.relayed else self._direct
        full = None if short in ("sessions", "sessions_of_service") else table.full(claim.where)
        among = (
            service if short == "sessions_of_service" else self._held if full is None else table.members(full.prefix)
        )

        def inside(where: Source) -> bool:
            if full is None:
                return True
            if full.step == "all":
                return _relayed(where)
            return any(prefix == full.prefix for _, prefix in where)

        for listed in (False, True) if claim.listed else (False,):
            going = None if among is service else self._unused[listed].first(inside, (claim.where, claim.peer))
            if going is None:
                equals = listed or not claim.listed
                them = [one for one in among if self._held[one].listed is listed]
                going = self._least(them, claim, now, equals=equals)
            if going is not None:
                return going
        return None

    def _least(self, among: list[LiveSession], claim: Claim, now: float, *, equals: bool) -> LiveSession | None:
        """Who of these goes first. equals: of somebody who holds no more than the newcomer would, only what has been
        unused for some time may go."""
        counts = Counter(self._held[one].holder for one in among)
        share, grace = counts[claim.holder] + 1 if equals else 0, self._limits.grace
        found: tuple[tuple[int, int, float], LiveSession] | None = None
        for session in among:
            machine, held = session.machine, counts[self._held[session].holder]
            if is_unused(session):
                rank, since = 0, self._since[session]
            elif not machine.incoming.received:
                rank, since = 1, self._since[session]
            elif machine.active is None:
                rank, since = 2, machine.pulse.heard
            else:
                rank, since = 3, machine.pulse.traffic
            if held <= share and (rank == 3 or now - since < grace):
                continue
            key = (rank, -held if held > share else 0, since)
            if found is None or key < found[0]:
                found = key, session
        return None if found is None else found[1]

    def add(self, session: LiveSession, claim: Claim, now: float) -> None:
        """Hands out a place."""
        self._held[session] = claim
        self._since[session] = now
        self._unused[claim.listed].add(session, claim.where, claim.peer)
        (self._relayed if claim.relayed else self._direct).add(session, claim.where)
        self._peers[claim.peer] += 1

    def discard(self, session: LiveSession) -> None:
        """Takes a place back; a session without one is ignored."""
        claim = self._held.pop(session, None)
        if claim is None:
            return
        del self._since[session]
        self._unused[claim.listed].discard(session, claim.where, claim.peer)
        (self._relayed if claim.relayed else self._direct).discard(session)
        self._peers[claim.peer] -= 1
        if not self._peers[claim.peer]:
            del self._peers[claim.peer]

    # --- memory -------------------------------------------------------------------------------------------

    def borrow(self, claim: Claim) -> Budget:
        """The part of the budget that one more session shares with others from the same place. To be returned."""
        share, users = self._shares.get(claim.budget) or (Budget(self._limits.budget_per_origin, self._budget), 0)
        self._shares[claim.budget] = (share, users + 1)
        return share

    def give_back(self, claim: Claim) -> None:
        """One session that borrowed has given its bytes back."""
        share, users = self._shares[claim.budget]
        if users == 1:
            del self._shares[claim.budget]
        else:
            self._shares[claim.budget] = (share, users - 1)


def _relayed(where: Source) -> bool:
    return where[0][1].startswith(_OVER)
