"""One record a peer: what is remembered, and who is forgotten first when there are too many."""

from __future__ import annotations

import pytest

from punchbridge.behaviours.dcutr.record import PeerPunch, Records
from punchbridge.config import Punch, PunchLimits
from punchbridge.identity import Identity, PeerId
from punchbridge.reach.punching import Punching, PunchOutcome, Standing, Start
from punchbridge.verdict import Code, Verdict


def make(_peer: PeerId) -> Punching:
    return Punching(Punch(attempts=1, retry=1e9), PunchLimits(), gives_way=False)


def peers(count: int) -> list[PeerId]:
    return [Identity.generate().peer_id for _ in range(count)]


def held(record: PeerPunch) -> None:
    """A run with the peer has failed, and the pause after it is not over."""
    step = record.punching.decide(Standing(inbound=1), 0.0, 0.0)
    assert isinstance(step, Start)
    outcome = PunchOutcome(record.peer, Verdict(Code.SYN_FILTERED), 1, "initiator", True, 0.0, 0.0)
    record.punching.end(record.punching.begin(), outcome, step.pause, 0.0, 0.0, overtaken=False, direct=False)


@pytest.fixture
def three() -> Records:
    return Records(make, most=3)


async def test_a_peer_has_one_record(three: Records) -> None:
    [peer] = peers(1)
    assert three.find(peer) is None
    assert three.of(peer) is three.of(peer) is three.find(peer)


async def test_a_crowd_of_peer_ids_does_not_end_the_pause_of_a_peer_whose_punches_fail(three: Records) -> None:
    [failing, *crowd] = peers(20)
    held(three.of(failing))
    for peer in crowd:
        three.of(peer)
    assert len(three) == 3
    assert three.find(failing) is not None
    for peer in crowd:
        held(three.of(peer))
    assert len(three) == 3
    assert three.find(failing) is not None


async def test_a_peer_with_which_something_is_under_way_is_not_forgotten(three: Records) -> None:
    busy = [three.of(peer) for peer in peers(3)]
    busy[0].circuits.add(1)
    busy[1].direct = 2
    busy[2].waiting = 1
    others = [three.of(peer) for peer in peers(3)]
    assert all(three.find(one.peer) is one for one in busy)
    assert [three.find(one.peer) for one in others] == [None, None, others[2]]
