"""What is known of the NATs on both sides goes into an attempt's evidence, before it and after it.

The judge (`punchbridge.reach.verdict`) reads the evidence. Nothing is dialled here except a second observer, when an
attempt failed outside and nobody knows the NAT in front of us.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import trio

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.iana import kind_of
from punchbridge.reach.nat import Mapping
from punchbridge.reach.observed import ObservedAddresses
from punchbridge.reach.verdict import Evidence, judge
from punchbridge.verdict import Code

__all__ = ["evidence_for", "explain"]

_REFUSED_OUTSIDE: Final = frozenset({Code.SYN_FILTERED, Code.RESET_BY_NAT, Code.UNREACHABLE_BY_NAT})
"""What a NAT that filters by port does to dials aimed at a mapping that depends on the destination."""


def evidence_for(remote: Sequence[Multiaddr], observed: ObservedAddresses) -> Evidence:
    """Fresh evidence for an attempt at these addresses, with what is known of both NATs' mappings."""
    ports = Counter(endpoint.place for endpoint in _endpoints(remote) if kind_of(endpoint.ip) == "public")
    evidence = Evidence(remote_dependent=any(count > 1 for count in ports.values()))
    for version, proto in _kinds(remote):
        _add_mapping(evidence, observed.report(version, proto).mapping)
    return evidence


async def explain(
    evidence: Evidence, remote: Sequence[Multiaddr], observed: ObservedAddresses, observer: SecondObserver
) -> Code:
    """The code of an attempt without a connection, after `observer.timeout` seconds at most.

    The observer is asked about the NATs that nobody knows: those of the IP versions that were dialled, since an IPv4
    NAT says nothing about IPv6.
    """
    code = judge(evidence).code
    if code not in _REFUSED_OUTSIDE or evidence.mapping.dependent:
        return code
    with trio.move_on_after(observer.timeout):
        for version, proto in _kinds(remote):
            if observed.report(version, proto).mapping is Mapping.UNKNOWN:
                _add_mapping(evidence, await observer.ask(version, proto))
    return judge(evidence).code


def _endpoints(addrs: Sequence[Multiaddr]) -> set[Endpoint]:
    return {endpoint for endpoint in map(endpoint_of, addrs) if endpoint is not None}


def _kinds(addrs: Sequence[Multiaddr]) -> list[tuple[int, Proto]]:
    """The IP versions and protocols of the addresses, each of which has a NAT of its own."""
    return sorted({(endpoint.ip.version, endpoint.proto) for endpoint in _endpoints(addrs)})


def _add_mapping(evidence: Evidence, mapping: Mapping) -> None:
    """A dependent mapping explains a failure, whatever the others are; a known one says more than an unknown one."""
    if not evidence.mapping.dependent and mapping is not Mapping.UNKNOWN:
        evidence.mapping = mapping
