"""What sessions ask of the host around them: its swarm, and two questions. The host's own room is above this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from punchbridge.addresses import Multiaddr
from punchbridge.identity import PeerId
from punchbridge.swarm.swarm import Swarm
from punchbridge.verdict import Code, Verdict

__all__ = ["Around"]


def _no_relays() -> tuple[Multiaddr, ...]:
    return ()


def _no_punching(peer: PeerId) -> Verdict:
    return Verdict(Code.DISABLED)


@dataclass(frozen=True)
class Around:
    """The host as a session sees it. Without answers of its own it keeps no relay and does not punch.

    relays: the addresses of the relays that we keep a reservation at, through which a peer may be found again.
    verdict: why there is no direct path to a peer.
    """

    swarm: Swarm
    relays: Callable[[], tuple[Multiaddr, ...]] = _no_relays
    verdict: Callable[[PeerId], Verdict] = _no_punching
