"""What other peers' observations say about the NAT in front of us, in the words of RFC 4787 and RFC 5382.

Pure arithmetic on observations. It knows no socket and sends no probe, so it says nothing about filtering: only the
mapping can be read off the addresses that others see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of
from punchbridge.iana import unmapped
from punchbridge.identity import PeerId

__all__ = ["Mapping", "MappingReport", "Observation", "classify"]


class Mapping(StrEnum):
    """Mapping behaviour (RFC 4787 section 4.1). The dependent kinds defeat a punch against a restricted peer."""

    UNKNOWN = "unknown"
    NONE = "none"
    """Observers see our own address: no translation."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    """At least address-dependent: nobody has compared two ports of one observer."""
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"

    @property
    def dependent(self) -> bool:
        return self in (Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT)


@dataclass(frozen=True)
class Observation:
    """One peer's word for the address it sees for our listening port, on one direct connection."""

    observer: str
    """The observer's IP."""
    observer_port: int
    """Its port; 0 when not told."""
    observer_peer: PeerId
    local: Endpoint
    observed: Endpoint
    at: float
    """Monotonic seconds."""
    stale_since: float | None = None
    """When its connection ended; the mapping may be gone then."""
    inbound: bool = False
    """The observer came to us. Anybody may come and say anything; whom we dial, we have chosen."""


@dataclass(frozen=True)
class MappingReport:
    """The verdict for one IP version. `port_kept`: external equals internal port; None when nobody told."""

    mapping: Mapping
    port_kept: bool | None = None
    observers: int = 0


def classify(observations: Sequence[Observation], version: int, proto: Proto) -> MappingReport:
    """Compares the observations of one IP version (4 or 6) and protocol; at least two observer IPs are needed.

    A NAT maps TCP and UDP apart, often in different ways, so what was seen of one says nothing about the other.

    Observers inside our own network see the untranslated address; they are set aside once another one sees a
    translation. Only observations for one local endpoint are compared (the newest one's), since two interfaces have
    two addresses without any NAT. Stale observations do not count, nor does what an observer says that came to us: one
    stranger's lie would make a symmetric NAT of ours.
    """
    kind = f"ip{version}", proto
    chosen = [one for one in observations if one.stale_since is None and not one.inbound]
    fresh = [one for one in chosen if (one.observed.kind, one.observed.proto) == kind]
    if not fresh:
        return MappingReport(Mapping.UNKNOWN)
    translated = [item for item in fresh if item.observed != item.local]
    if not translated:
        return MappingReport(Mapping.NONE, True, len({item.observer for item in fresh}))
    local = max(translated, key=lambda item: item.at).local
    compared = [item for item in translated if item.local == local]
    kept = all(item.observed.port == item.local.port for item in compared)
    observers = {item.observer for item in compared}
    if len({item.observed for item in compared}) == 1:
        enough = len(observers) >= 2
        return MappingReport(Mapping.ENDPOINT_INDEPENDENT if enough else Mapping.UNKNOWN, kept, len(observers))
    for observer in observers:
        mine = [item for item in compared if item.observer == observer]
        if len({item.observed for item in mine}) > 1:
            return MappingReport(Mapping.ADDRESS_AND_PORT_DEPENDENT, kept, len(observers))
    return MappingReport(Mapping.ADDRESS_DEPENDENT, kept, len(observers))


def endpoint_key(addr: Multiaddr) -> Endpoint | None:
    """The numeric endpoint of an address, IPv4-mapped IPv6 unwrapped; None for names and transports unknown here."""
    endpoint = endpoint_of(addr)
    if endpoint is None or endpoint.kind not in ("ip4", "ip6"):
        return None
    plain = unmapped(endpoint.ip)
    return Endpoint(f"ip{plain.version}", str(plain), endpoint.port, endpoint.proto)
