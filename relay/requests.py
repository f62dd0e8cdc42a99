"""How many requests are under way: in all, of one peer, and from one network. Counts and bounds only.

It answers nobody and reads no stream. What is refused here was not a circuit and not a reservation yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from punchbridge.identity import PeerId
from punchbridge.wire.circuit import Status
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.refusal import HopRefusal

__all__ = ["Requests"]

K = TypeVar("K")


class Requests:
    """The requests that are not answered yet, and the refusals on their way to peers that perhaps do not read them."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._all = 0
        self._peers: Counter[PeerId] = Counter()
        self._networks: Counter[str] = Counter()
        self._refusing: Counter[str] = Counter()

    def asks(self, peer: PeerId) -> bool:
        """Whether a request of this peer is under way."""
        return peer in self._peers

    @contextmanager
    def under_way(self, peer: PeerId, network: str) -> Iterator[None]:
        """Counts one request while the block runs. Raises HopRefusal when there are too many.

        `network`: an IPv4 address or an IPv6 /48."""
        limits = self._limits
        if limits.hop_streams and self._all >= limits.hop_streams:
            raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "hop_streams")
        if limits.hop_streams_per_peer and self._peers[peer] >= limits.hop_streams_per_peer:
            raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "hop_streams_peer")
        if not self._room(self._networks, network):
            raise HopRefusal(Status.RESOURCE_LIMIT_EXCEEDED, "hop_streams_address")
        self._all += 1
        try:
            with _counted(self._peers, peer), _counted(self._networks, network):
                yield
        finally:
            self._all -= 1

    @contextmanager
    def refusing(self, network: str) -> Iterator[bool]:
        """Counts one refusal while it is told. False: so many of that network wait to be read that this one is not to
        be told; the stream is to be reset."""
        room = self._room(self._refusing, network)
        with _counted(self._refusing, network):
            yield room

    def _room(self, counts: Counter[str], network: str) -> bool:
        most = self._limits.hop_streams_per_address
        return not most or counts[network] < most


@contextmanager
def _counted(counts: Counter[K], key: K) -> Iterator[None]:
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
