"""Mapping behaviour from observations (RFC 4787 section 4.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import Endpoint
from punchbridge.identity import Identity
from punchbridge.reach.nat import Mapping, Observation, classify

PEER = Identity.generate().peer_id
LOCAL = Endpoint("ip4", "10.1.0.2", 4001, "tcp")


def seen(
    observer: str, host: str, port: int, *, at: float = 1.0, local: Endpoint = LOCAL, observer_port: int = 7001
) -> Observation:
    return Observation(observer, observer_port, PEER, local, Endpoint("ip4", host, port, "tcp"), at)


@pytest.mark.parametrize(
    ("observations", "mapping", "kept"),
    [
        ([], Mapping.UNKNOWN, None),
        ([seen("11.0.0.10", "11.1.0.2", 4001)], Mapping.UNKNOWN, True),
        ([seen("11.0.0.10", "10.1.0.2", 4001)], Mapping.NONE, True),
        (
            [seen("11.0.0.10", "11.1.0.2", 30001), seen("11.0.0.20", "11.1.0.2", 30001)],
            Mapping.ENDPOINT_INDEPENDENT,
            False,
        ),
        (
            [seen("11.0.0.10", "11.1.0.2", 30001), seen("11.0.0.10", "11.1.0.2", 30001, observer_port=7002)],
            Mapping.UNKNOWN,
            False,
        ),
        (
            [seen("11.0.0.10", "11.1.0.2", 30001), seen("11.0.0.20", "11.1.0.2", 30002)],
            Mapping.ADDRESS_DEPENDENT,
            False,
        ),
        (
            [seen("11.0.0.10", "11.1.0.2", 30001), seen("11.0.0.10", "11.1.0.2", 30002, observer_port=7002)],
            Mapping.ADDRESS_AND_PORT_DEPENDENT,
            False,
        ),
        (
            [seen("11.0.0.10", "11.1.0.2", 4001), seen("10.1.0.9", "10.1.0.2", 4001)],
            Mapping.UNKNOWN,
            True,
        ),
    ],
)
def test_mapping(observations: list[Observation], mapping: Mapping, kept: bool | None) -> None:
    report = classify(observations, 4, "tcp")
    assert (report.mapping, report.port_kept) == (mapping, kept)
    assert report.mapping.dependent == mapping.value.startswith("address-")


def test_two_interfaces_are_not_taken_for_a_symmetric_nat() -> None:
    wifi = Endpoint("ip4", "10.9.0.2", 4001, "tcp")
    both = [seen("11.0.0.10", "11.1.0.2", 4001), seen("11.0.0.20", "11.2.0.2", 4001, at=2.0, local=wifi)]
    report = classify(both, 4, "tcp")
    assert report.mapping is Mapping.UNKNOWN


def test_versions_are_judged_apart_and_stale_observations_do_not_count() -> None:
    first, second = seen("11.0.0.10", "11.1.0.2", 1), seen("11.0.0.20", "11.1.0.2", 2)
    assert classify([first, second], 6, "tcp").mapping is Mapping.UNKNOWN
    stale = Observation(**{**second.__dict__, "stale_since": 3.0})
    assert classify([first, stale], 4, "tcp").mapping is Mapping.UNKNOWN


@given(
    st.lists(st.tuples(st.sampled_from(["192.0.2.66", "11.0.0.10", "11.0.0.20"]), st.integers(1, 3)), max_size=6),
    st.integers(0, 2),
)
def test_whoever_comes_to_us_changes_nothing_that_those_said_whom_we_dialled(
    lies: list[tuple[str, int]], relays: int
) -> None:
    told = [seen(f"11.0.0.{10 * (n + 1)}", "11.1.0.2", 30001) for n in range(relays)]
    came = [replace(seen(who, "11.1.0.2", port, at=9.0, observer_port=5), inbound=True) for who, port in lies]
    assert classify([*told, *came], 4, "tcp") == classify(told, 4, "tcp")


def test_what_is_seen_of_udp_says_nothing_about_tcp() -> None:
    tcp = [seen("11.0.0.10", "11.1.0.2", 4001), seen("11.0.0.20", "11.1.0.2", 4001)]
    udp = [
        replace(one, local=replace(one.local, proto="udp"), observed=replace(one.observed, proto="udp", port=port))
        for one, port in zip(tcp, (30001, 30002), strict=True)
    ]
    assert classify([*tcp, *udp], 4, "tcp").mapping is Mapping.ENDPOINT_INDEPENDENT
    assert classify([*tcp, *udp], 4, "udp").mapping is Mapping.ADDRESS_DEPENDENT
    assert classify(udp, 4, "tcp").mapping is Mapping.UNKNOWN
