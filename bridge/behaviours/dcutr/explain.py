"""What is known of the NATs on both sides goes into an attempt's evidence, before it and after it.

The judge (`punchbridge.reach.verdict`) reads the evidence. Nothing is dialled here except a second observer, when an
attempt failed outside and nobody knows the NAT in front of us.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import trio

from punchbridge.addresses import Endpoint, Proto
from punchbridge.behaviours.dcutr.attempts import Attempt
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.behaviours.nat.other import OtherTransport
from punchbridge.iana import kind_of
from punchbridge.reach.candidates import endpoints_of
from punchbridge.reach.nat import Mapping
from punchbridge.reach.observed import ObservedAddresses
from punchbridge.reach.verdict import Evidence, UdpEvidence, choose, judge, judge_udp
from punchbridge.verdict import Code

__all__ = ["explain", "gather", "note"]

_REFUSED_OUTSIDE: Final = frozenset({Code.SYN_FILTERED, Code.RESET_BY_NAT, Code.UNREACHABLE_BY_NAT})
"""What a NAT that filters by port does to dials aimed at a mapping that depends on the destination."""


def gather(attempt: Attempt, observed: ObservedAddresses) -> None:
    """Puts what is known of both NATs' mappings into a fresh attempt."""
    kinds: tuple[tuple[Proto, Evidence | UdpEvidence], ...] = (("tcp", attempt.evidence), ("udp", attempt.udp))
    for proto, evidence in kinds:
        endpoints = endpoints_of(attempt.remote, proto)
        ports = Counter(endpoint.place for endpoint in endpoints if kind_of(endpoint.ip) == "public")
        evidence.remote_dependent = any(count > 1 for count in ports.values())
        for version in _versions(endpoints):
            _add_mapping(evidence, observed.report(version, proto).mapping)


async def explain(
    attempt: Attempt, observed: ObservedAddresses, observer: SecondObserver, other: OtherTransport
) -> Code:
    """The code of an attempt without a connection, after `observer.timeout` seconds at most; those of its transports
    are noted in it.

    The observer is asked about the NATs that nobody knows: those of the IP versions that were dialled, since an IPv4
    NAT says nothing about IPv6.
    """
    attempt.udp.relays_silent = other.udp_blocked(_versions(endpoints_of(attempt.remote, "udp")))
    with trio.move_on_after(observer.timeout):
        for proto, evidence, refused in _asked(attempt):
            if not refused or evidence.mapping.dependent:
                continue
            for version in _versions(endpoints_of(attempt.remote, proto)):
                if observed.report(version, proto).mapping is Mapping.UNKNOWN:
                    _add_mapping(evidence, await observer.ask(version, proto))
    return note(attempt)


def note(attempt: Attempt) -> Code:
    """Judges an attempt without a connection by what is known now; each transport's code is noted in it."""
    if "tcp" in attempt.tried or not attempt.tried:
        attempt.tried["tcp"] = judge(attempt.evidence).code
    if "quic" in attempt.tried:
        attempt.tried["quic"] = judge_udp(attempt.udp)
    return choose(attempt.tried.get("tcp"), attempt.tried.get("quic"))


def _asked(attempt: Attempt) -> list[tuple[Proto, Evidence | UdpEvidence, bool]]:
    """The transports that were tried, and whether they were refused outside by what a mapping may explain."""
    asked: list[tuple[Proto, Evidence | UdpEvidence, bool]] = []
    if "tcp" in attempt.tried:
        asked.append(("tcp", attempt.evidence, judge(attempt.evidence).code in _REFUSED_OUTSIDE))
    if "quic" in attempt.tried:
        silent = judge_udp(attempt.udp) is Code.UDP_BLOCKED and not attempt.udp.relays_silent
        asked.append(("udp", attempt.udp, silent))
    return asked


def _versions(endpoints: Sequence[Endpoint]) -> list[int]:
    """The IP versions of the endpoints, each of which has a NAT of its own."""
    return sorted({endpoint.ip.version for endpoint in endpoints})


def _add_mapping(evidence: Evidence | UdpEvidence, mapping: Mapping) -> None:
    """A dependent mapping explains a failure, whatever the others are; a known one says more than an unknown one."""
    if not evidence.mapping.dependent and mapping is not Mapping.UNKNOWN:
        evidence.mapping = mapping
