"""The decision who may call, as a value: lists from flags, files and invitations in one, and what a change of it means.

Denial wins over everything. Nobody is let in who is on no list, unless everybody is. Pure: it is told a peer that was
proven and the address that it is seen at, and it reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from punchbridge.access.lists import NO_RULES, Address, Entry, Rules, parse_who
from punchbridge.access.records import Records
from punchbridge.config.access import ANYONE, Anyone
from punchbridge.identity import PeerId

__all__ = ["NOBODY", "OPEN", "Access", "Allow", "Change", "Decision", "change"]


Allow: TypeAlias = "Iterable[str | PeerId] | Anyone"
"""Whom an application admits: peer ids and networks, or ANYONE."""


class Decision(StrEnum):
    """What holds for a peer."""

    ALLOWED = "ALLOWED"
    DENIED = "DENIED"
    UNKNOWN = "UNKNOWN"
    """A stranger: it may show an invitation, and nothing else."""


@dataclass(frozen=True)
class Access:
    """Who may call. The default is nobody."""

    allow: Rules = NO_RULES
    deny: Rules = NO_RULES
    anyone: bool = False
    """Whoever is not denied is allowed."""

    @classmethod
    def of(cls, allow: Allow = (), deny: Iterable[str | PeerId] = ()) -> Access:
        """From peer ids and networks as an application names them, or ANYONE. Raises ConfigError for a bad one."""
        anyone = allow is ANYONE
        return cls(_rules(() if isinstance(allow, Anyone) else allow), _rules(deny), anyone)

    def __or__(self, other: Access) -> Access:
        """What both say together: whoever one of them allows and none denies."""
        return Access(self.allow | other.allow, self.deny | other.deny, self.anyone or other.anyone)

    def with_records(self, records: Records) -> Access:
        """With what the access file says."""
        return self | Access(records.allow, records.deny)

    def decide(self, peer: PeerId, address: Address | None, told: Address | None = None) -> Decision:
        """What holds for a proven peer that is seen at `address`; None where none is seen, as over a circuit.

        told: where a relay says that it sees the peer. A relay is trusted to shut out and not to let in.
        """
        if self.deny.match(peer, address) or self.deny.match_address(told):
            return Decision.DENIED
        return Decision.ALLOWED if self.anyone or self.allow.match(peer, address) else Decision.UNKNOWN

    def names(self, peer: PeerId, address: Address | None) -> bool:
        """Whether a peer is allowed by an entry of the lists, and not only because everybody is."""
        return self.allow.match(peer, address) and not self.deny.match(peer, address)

    def denies_address(self, address: Address | None) -> bool:
        """Whether everybody who is seen at `address` is denied, so that no peer id need be proven first."""
        return self.deny.match_address(address)

    def labels(self, peer: PeerId) -> frozenset[str]:
        """The labels of the lists and invitations by which the peer is allowed; none for one that is denied by id."""
        return frozenset() if peer in self.deny.peers else self.allow.labels.get(peer, frozenset())


NOBODY: Final = Access()
OPEN: Final = Access(anyone=True)


def _rules(whom: Iterable[str | PeerId]) -> Rules:
    return Rules(tuple(Entry(one if isinstance(one, PeerId) else parse_who(one)) for one in whom))


@dataclass(frozen=True)
class Change:
    """The peers for which another decision holds than before, each once."""

    admitted: tuple[PeerId, ...] = ()
    struck_out: tuple[PeerId, ...] = ()
    """They were allowed and are not any more: their sessions end."""


def change(before: Access, after: Access, present: Iterable[tuple[PeerId, Address | None]]) -> Change:
    """What a change means for the peers that are connected. `present`: each connection's peer and its address.

    A peer with several connections is allowed by any of its addresses, unless one of them is denied.
    """
    if before == after:
        return Change()
    places: dict[PeerId, list[Address | None]] = {}
    for peer, address in present:
        places.setdefault(peer, []).append(address)
    was = {peer: _allowed(before, peer, addresses) for peer, addresses in places.items()}
    now = {peer: _allowed(after, peer, addresses) for peer, addresses in places.items()}
    return Change(
        tuple(peer for peer in places if now[peer] and not was[peer]),
        tuple(peer for peer in places if was[peer] and not now[peer]),
    )


def _allowed(access: Access, peer: PeerId, addresses: Iterable[Address | None]) -> bool:
    decisions = {access.decide(peer, address) for address in addresses}
    return Decision.ALLOWED in decisions and Decision.DENIED not in decisions
