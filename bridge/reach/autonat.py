"""What an AutoNAT v2 server grants and dials, and what a client makes of the answers (specs autonat-v2.md).

Pure: the server's dial-back and the client's check that it arrived on the tested address are made by the behaviour.
The rules A1 to A11 stand in docs/wire-rules.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from punchbridge.addresses import Multiaddr, Proto, decode, is_relayed, peer_of
from punchbridge.config import AutonatLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.identity import PeerId
from punchbridge.reach.candidates import Scope
from punchbridge.reach.nat import endpoint_key
from punchbridge.tasks.rates import Window
from punchbridge.wire.autonat import MAX_ADDRS, MAX_DATA, MIN_DATA, SILENCE, Answer, Request

__all__ = ["Choice", "DataMeter", "Quota", "Reachability", "Refused", "Tally", "choose"]

Reachability = Literal["public", "private", "unknown"]
_WINDOW = 60.0


@dataclass(frozen=True)
class Choice:
    """The server's decision to dial: A2, the first address it is able and willing to dial."""

    index: int
    addr: Multiaddr
    nonce: int
    proto: Proto
    foreign: bool
    """The address's IP differs from the client's (A4): dial data is due."""


@dataclass(frozen=True)
class Refused:
    """The server's decision not to dial; `answer` goes to the client."""

    answer: Answer
    reason: str


def choose(
    request: Request, *, client_ip: str, own: Collection[str], scope: Scope, sources: Collection[tuple[int, Proto]]
) -> Choice | Refused:
    """Selects the first address that may be dialled (A2, A3, A10).

    `client_ip`: the client's IP on this connection; `own`: our IPs, never dialled; `sources`: the IP versions and
    protocols that this machine can dial from.
    """
    if not request.addrs or len(request.addrs) > MAX_ADDRS:
        return Refused(Answer("E_REQUEST_REJECTED"), f"{len(request.addrs)} addresses")
    for index, raw in enumerate(request.addrs):
        addr = decode(raw)
        endpoint = None if addr is None or is_relayed(addr) or peer_of(addr) is not None else endpoint_key(addr)
        if addr is None or endpoint is None or endpoint.port == 0 or endpoint.host in own:
            continue
        if (endpoint.ip.version, endpoint.proto) in sources and scope.allows(endpoint.ip):
            return Choice(index, addr, request.nonce, endpoint.proto, endpoint.host != client_ip)
    return Refused(Answer("E_DIAL_REFUSED"), "no address that may be dialled")


class DataMeter:
    """Counts dial data (A4): only `data` counts, and the last message may be larger than what is left."""

    def __init__(self, due: int) -> None:
        if not MIN_DATA <= due <= MAX_DATA:
            raise ValueError(f"{due} bytes of dial data")
        self.left = due

    def receive(self, size: int) -> bool:
        """Takes one message of `size` data bytes; True when everything was paid. Raises ProtocolViolation for none."""
        if size == 0:
            raise ProtocolViolation("AutoNAT: a dial data message without data")
        self.left -= size
        return self.left <= 0


class Quota:
    """The server's limits (as go-libp2p): requests a minute in all and per peer, with data, and at once."""

    def __init__(self, limits: AutonatLimits) -> None:
        self._at_once = limits.requests_at_once
        self._requests = Window(limits.requests_per_minute, _WINDOW, per_key=limits.requests_per_peer)
        self._data = Window(limits.data_requests_per_minute, _WINDOW)
        self._active: dict[PeerId, int] = {}

    def admit(self, peer: PeerId, now: float) -> bool:
        """Counts one request; False when a limit is reached. Every True needs a `release`."""
        if self._active.get(peer, 0) >= self._at_once or not self._requests.take(now, peer):
            return False
        self._active[peer] = self._active.get(peer, 0) + 1
        return True

    def admit_data(self, now: float) -> bool:
        """Counts one request that needs dial data."""
        return self._data.take(now)

    def release(self, peer: PeerId) -> None:
        left = self._active.pop(peer, 0) - 1
        if left > 0:
            self._active[peer] = left


@dataclass
class _Score:
    public: dict[PeerId, float] = field(default_factory=dict)
    private: dict[PeerId, float] = field(default_factory=dict)


class Tally:
    """What servers found out about each of our addresses: the newest answer of each server counts (A9), until it is
    `limits.stale` seconds old and others speak."""

    def __init__(self, limits: AutonatLimits) -> None:
        self._limits = limits
        self._scores: dict[str, _Score] = {}

    def record(self, addr: Multiaddr, server: PeerId, answer: Answer, *, nonce_seen: bool, now: float) -> bool:
        """Takes in one answer for an address; False when it says nothing (refused, internal error, unknown code).

        OK counts only when our nonce came back (A5), so a server cannot make us public by its word alone. SILENCE
        counts as a dial in vain: rust-libp2p's server allows a whole request the 10 s that a dial into a black hole
        takes, and then drops the request without an answer. But it is nobody's word, and says nothing against that of
        another server which has reached us.
        """
        if answer == SILENCE:
            known = self._scores.get(str(addr))
            if nonce_seen or (known is not None and known.public.keys() - {server}):
                return False
            answer = Answer("OK", 0, "E_DIAL_ERROR")
        if answer.status != "OK":
            return False
        if answer.dial == "OK" and nonce_seen:
            good = True
        elif answer.dial == "E_DIAL_ERROR":
            good = False
        else:
            return False
        score = self._scores.pop(str(addr), None) or _Score()
        self._scores[str(addr)] = score
        while len(self._scores) > self._limits.tracked:
            del self._scores[next(iter(self._scores))]
        (score.private if good else score.public).pop(server, None)
        (score.public if good else score.private)[server] = now
        for side in (score.public, score.private):
            for stale in [one for one, at in side.items() if now - at > self._limits.stale]:
                del side[stale]
            while len(side) > self._limits.confirmations:
                del side[next(iter(side))]
        return True

    def reachability(self, addr: Multiaddr) -> tuple[Reachability, int]:
        """The verdict for one address and the number of servers that agree.

        A majority decides; a tie between servers says unknown until one of them is asked again.
        """
        score = self._scores.get(str(addr))
        if score is None or len(score.public) == len(score.private):
            return "unknown", 0
        good = len(score.public) > len(score.private)
        return ("public", len(score.public)) if good else ("private", len(score.private))

    def overall(self, proto: Proto | None = None) -> Reachability:
        """Public when any address is; private when all that are known are private. proto: of those with such ports."""
        verdicts = {self._verdict(addr) for addr in self._scores if proto is None or _proto(addr) == proto}
        if "public" in verdicts:
            return "public"
        return "private" if verdicts == {"private"} else "unknown"

    def _verdict(self, addr: str) -> Reachability:
        return self.reachability(Multiaddr(addr))[0]

    def keep(self, addrs: Collection[Multiaddr]) -> tuple[Multiaddr, ...]:
        """Forgets all other addresses, since they are no longer ours (our network changed); returns those."""
        ours = {str(addr) for addr in addrs}
        gone = tuple(addr for addr in self._scores if addr not in ours)
        for addr in gone:
            del self._scores[addr]
        return tuple(map(Multiaddr, gone))


def _proto(addr: str) -> Proto | None:
    endpoint = endpoint_key(Multiaddr(addr))
    return None if endpoint is None else endpoint.proto
