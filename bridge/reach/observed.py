"""What other peers see as the address of our listening port, kept while it can be trusted.

It collects observations and knows when one has become stale. What follows from them for the NAT in front of us is
judged in `nat`; which of them are offered to a peer, in `candidates`. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from punchbridge.addresses import Endpoint, Multiaddr, Proto, addr_of, is_relayed
from punchbridge.config import NatLimits
from punchbridge.iana import kind_of
from punchbridge.identity import PeerId
from punchbridge.reach.nat import MappingReport, Observation, classify, endpoint_key

__all__ = ["ObservedAddresses"]


class ObservedAddresses:
    """What other peers see as the address of our listening port. One entry for each observer endpoint.

    Only observations from direct connections that use the listening port belong in here: the mapping of another
    port is worthless for punching. Bounded by `limits.observations`; not safe for use from several threads.
    """

    def __init__(self, limits: NatLimits) -> None:
        self._limits = limits
        self._entries: dict[tuple[str, int, Endpoint], Observation] = {}

    def record(
        self,
        *,
        observer: str,
        observer_peer: PeerId,
        local: Multiaddr,
        observed: Multiaddr,
        now: float,
        observer_port: int = 0,
        inbound: bool = False,
    ) -> Observation | None:
        """Takes in one observation (`observer`: the remote IP as text, `now`: monotonic seconds).

        Returns it when it says something this observer had not said before, None when it is known already or
        unusable (not a numeric address, of another IP version or protocol than `local`, unspecified, port 0, relayed).
        """
        here, seen = endpoint_key(local), endpoint_key(observed)
        if here is None or seen is None or is_relayed(observed) or seen.port == 0:
            return None
        if kind_of(seen.ip) in ("unspecified", "multicast", "link-local", "reserved"):
            return None
        if (seen.kind, seen.proto) != (here.kind, here.proto):
            return None
        key = (observer, observer_port, here)
        before = self._entries.pop(key, None)
        entry = Observation(observer, observer_port, observer_peer, here, seen, now, inbound=inbound)
        self._entries[key] = entry
        if len(self._entries) > self._limits.observations:
            # Those who came by themselves go first: a crowd of them must not talk us out of our own address.
            del self._entries[
                next((one for one, seen in self._entries.items() if seen.inbound), next(iter(self._entries)))
            ]
        known = before is not None and before.observed == seen and before.stale_since is None
        return None if known else entry

    def forget(
        self, *, observer_peer: PeerId, now: float, observer: str | None = None, proto: Proto | None = None
    ) -> None:
        """Marks the observations of a peer (at one IP, by one protocol) as stale: its direct connection ended."""
        for key, entry in list(self._entries.items()):
            here = observer in (None, entry.observer) and proto in (None, entry.local.proto)
            if entry.observer_peer == observer_peer and here:
                self._entries[key] = replace(entry, stale_since=entry.stale_since or now)

    def clear(self) -> None:
        """Forgets everything: our network changed."""
        self._entries.clear()

    def current(self, now: float | None = None) -> tuple[Observation, ...]:
        """Live observations newest first, then those that became stale less than `limits.stale` seconds ago; of either,
        those of observers that we dialled first."""
        entries = reversed(self._entries.values())
        usable = [e for e in entries if e.stale_since is None or self._recent(e.stale_since, now)]
        return tuple(sorted(usable, key=lambda entry: (entry.stale_since is not None, entry.inbound)))

    def addresses(self, now: float | None = None, *, chosen: bool = False) -> tuple[Multiaddr, ...]:
        """The distinct observed addresses, the newest of a live connection first.

        chosen: only those that an observer has told which we dialled. An observer that came to us may say anything, so
        its word is good for what is checked before use (AutoNAT) and for nothing else.
        """
        seen = dict.fromkeys(entry.observed for entry in self.current(now) if not (chosen and entry.inbound))
        return tuple(map(addr_of, seen))

    def report(self, version: int, proto: Proto) -> MappingReport:
        """The mapping behaviour of the NAT in front of us for one IP version (4 or 6) and protocol."""
        return classify(tuple(self._entries.values()), version, proto)

    def mapping(self, version: int, proto: Proto) -> str:
        """The mapping in words, as events print it: unknown, none, endpoint-independent, address-dependent, ..."""
        return self.report(version, proto).mapping.value

    def _recent(self, stale_since: float, now: float | None) -> bool:
        return now is None or now - stale_since <= self._limits.stale
