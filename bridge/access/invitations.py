"""Invitations: what a server keeps of the tickets it gave away, and what it answers when a secret is shown.

The server keeps a digest and never the secret. An invitation lets in a number of peers, each of which stays admitted
until the invitation is revoked or the peer denied; the expiry ends the inviting, not the being admitted. Pure: times
come in as UTC seconds.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from punchbridge.access.secret import DIGEST_SIZE, Secret
from punchbridge.identity import PeerId

__all__ = ["WORDS", "Invitation", "Outcome", "Redeemed", "outcome_of", "redeem"]


class Outcome(StrEnum):
    """What a server answers to the secret of an invitation."""

    GRANTED = "GRANTED"
    USED_UP = "USED_UP"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    UNKNOWN = "UNKNOWN"


WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.GRANTED: "the invitation holds, and this peer is admitted",
    Outcome.USED_UP: "the invitation has let in as many peers as it is for; ask for another ticket",
    Outcome.EXPIRED: "the invitation has expired; ask for another ticket",
    Outcome.REVOKED: "the invitation was revoked; ask whoever gave the ticket",
    Outcome.UNKNOWN: "the server knows no such invitation; ask for another ticket",
}
"""Each answer for the person who has the ticket."""


@dataclass(frozen=True)
class Redeemed:
    """A peer that an invitation let in, and when (whole UTC seconds)."""

    peer: PeerId
    at: int


@dataclass(frozen=True)
class Invitation:
    """One secret that was given away, as its SHA-256. Times are whole UTC seconds."""

    digest: bytes
    made: int
    expires: int | None = None
    """None: never. From this moment on nobody else is let in."""

    uses: int = 1
    """Peers, not runs: one that comes again costs nothing."""

    label: str = ""
    revoked: int | None = None
    redeemed: tuple[Redeemed, ...] = ()

    def __post_init__(self) -> None:
        if len(self.digest) != DIGEST_SIZE:
            raise ValueError(f"a SHA-256 has {DIGEST_SIZE} bytes, not {len(self.digest)}")

    @property
    def name(self) -> str:
        """What people call it in commands: the first eight digits of its SHA-256."""
        return self.digest.hex()[:8]

    @property
    def peers(self) -> frozenset[PeerId]:
        """Whom it admits now: those that it let in, none when it was revoked."""
        return frozenset() if self.revoked is not None else frozenset(one.peer for one in self.redeemed)

    @property
    def left(self) -> int:
        """Peers that may still be let in; expiry and revoking are not looked at."""
        return max(0, self.uses - len(self.redeemed))

    def dead(self, now: float) -> bool:
        """Whether it admits nobody and never will: it may be forgotten."""
        return not self.peers and self.state(now) is not Outcome.GRANTED

    def state(self, now: float) -> Outcome:
        """What a peer that it has not let in yet would be answered."""
        if self.revoked is not None:
            return Outcome.REVOKED
        if self.expires is not None and now >= self.expires:
            return Outcome.EXPIRED
        return Outcome.GRANTED if self.left else Outcome.USED_UP


def outcome_of(invitations: Sequence[Invitation], secret: Secret, peer: PeerId, now: float) -> Outcome:
    """What `redeem` answers, without counting: GRANTED too for a peer that was let in before."""
    found = _find(invitations, secret)
    if found is None:
        return Outcome.UNKNOWN
    return Outcome.GRANTED if peer in found.peers else found.state(now)


def redeem(
    invitations: Sequence[Invitation], secret: Secret, peer: PeerId, now: float
) -> tuple[Outcome, tuple[Invitation, ...]]:
    """The answer, and the invitations as they are after it: changed only when a peer was let in for the first time."""
    outcome, found = outcome_of(invitations, secret, peer, now), _find(invitations, secret)
    if outcome is not Outcome.GRANTED or found is None or peer in found.peers:
        return outcome, tuple(invitations)
    used = replace(found, redeemed=(*found.redeemed, Redeemed(peer, int(now))))
    return outcome, tuple(used if one is found else one for one in invitations)


def _find(invitations: Sequence[Invitation], secret: Secret) -> Invitation | None:
    """The invitation of a secret. All are compared, each in constant time: how long it takes tells nothing."""
    digest, found = secret.digest, None
    for one in invitations:
        if hmac.compare_digest(one.digest, digest):
            found = one
    return found
