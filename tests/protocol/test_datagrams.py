"""The pace of the datagrams that open a NAT, and where the dialler aims when it hears one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import Endpoint
from punchbridge.config import PunchLimits
from punchbridge.reach.datagrams import Aims, pause_after

LIMITS = PunchLimits()
PEER = Endpoint("ip4", "11.2.0.2", 4102, "udp")
MOVED = Endpoint("ip4", "11.2.0.2", 33877, "udp")


@given(st.integers(1, 1000), st.floats(0, 1))
def test_pauses_lie_within_their_bounds(sent: int, draw: float) -> None:
    assert LIMITS.datagram_least <= pause_after(sent, draw, LIMITS) <= LIMITS.datagram_most


def test_the_first_pauses_are_short_and_grow_to_the_longest() -> None:
    longest = [pause_after(sent, 1.0, LIMITS) for sent in range(1, 7)]
    assert longest == sorted(longest)
    assert longest[0] <= 0.02 + 1e-9
    assert longest[-1] == LIMITS.datagram_most


def aims(trip: float = 0.09) -> Aims:
    found = Aims({PEER.host}, trip, LIMITS)
    found.dialled(PEER, 10.0)
    return found


def test_a_candidate_is_dialled_again_once_no_answer_can_be_on_its_way_any_more() -> None:
    """Its NAT was opened after our first dial had come there."""
    one = aims()
    assert one.heard(PEER, 10.03) == 10.09
    assert one.heard(PEER, 10.05) is None
    assert aims().heard(PEER, 10.5) == 10.5
    assert one.moved == set()


def test_another_port_of_a_candidate_is_dialled_at_once_and_once() -> None:
    one = aims()
    assert one.heard(MOVED, 10.03) == 10.03
    assert one.heard(MOVED, 10.05) is None
    assert one.moved == {MOVED}


def test_hosts_that_are_no_candidates_are_not_heard() -> None:
    stranger = Endpoint("ip4", "11.9.9.9", 4102, "udp")
    assert not aims().hears(stranger.host)
    assert aims().heard(stranger, 10.1) is None


@given(st.lists(st.integers(1, 65535), unique=True))
def test_forged_sources_lead_to_few_dials(ports: list[int]) -> None:
    one = aims()
    led = [one.heard(Endpoint("ip4", PEER.host, port, "udp"), 11.0) for port in ports]
    assert sum(at is not None for at in led) <= LIMITS.aims
