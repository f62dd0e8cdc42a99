"""Whom a silent session puts in question, and whom it cannot hurt."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from punchbridge.config import Limits, PathLimits
from punchbridge.errors import ConnectionLost
from punchbridge.identity import Identity, PeerId
from punchbridge.session.silence import SilenceCheck

LOST, BUSY = Identity.generate().peer_id, Identity.generate().peer_id


class Line:
    """A connection that answers nothing before the moment `after`; None: never."""

    def __init__(self, peer: PeerId, after: float | None) -> None:
        self.peer = peer
        self.rtt = 0.02
        self.after = after
        self.asked = 0
        self.closed_for = ""
        self.closed = trio.Event()

    async def ping(self) -> float:
        self.asked += 1
        if self.closed.is_set():
            raise ConnectionLost("gone")
        if self.after is None:
            await trio.sleep_forever()
        else:
            await trio.sleep_until(max(self.after, trio.current_time() + self.rtt))
        return 0.0

    def abort(self, reason: str) -> None:
        self.closed_for = reason
        self.closed.set()


class Lines:
    def __init__(self, *lines: Line) -> None:
        self.lines = lines

    def connections(self, peer: PeerId | None = None) -> tuple[Line, ...]:
        return tuple(one for one in self.lines if peer in (None, one.peer))


def check(*lines: Line, paths: PathLimits | None = None) -> SilenceCheck:
    return SilenceCheck(cast(Any, Lines(*lines)), Limits(paths=paths or PathLimits()))


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_whoever_has_a_hiccup_while_others_answer_is_left_alone(autojump_clock: MockClock) -> None:
    lost, fine = Line(LOST, None), [Line(Identity.generate().peer_id, 0.02) for _ in range(5)]
    hiccup = [Line(Identity.generate().peer_id, 1.2) for _ in range(3)]
    await check(lost, *fine, *hiccup).ask(LOST)
    assert lost.closed_for == "SILENT"
    assert not any(one.closed_for for one in (*fine, *hiccup))


async def test_when_nobody_answers_all_are_closed(autojump_clock: MockClock) -> None:
    lines = [Line(LOST, None), Line(BUSY, None), Line(Identity.generate().peer_id, None)]
    await check(*lines).ask(LOST)
    assert [one.closed_for for one in lines] == ["SILENT"] * 3


async def test_a_connection_that_has_ended_is_no_answer(autojump_clock: MockClock) -> None:
    gone, other = Line(LOST, None), Line(BUSY, None)
    gone.closed.set()
    await check(gone, other).ask(LOST)
    assert other.closed_for == "SILENT"


async def test_the_only_other_connection_may_have_a_hiccup(autojump_clock: MockClock) -> None:
    lost, busy = Line(LOST, None), Line(BUSY, 1.2)
    await check(lost, busy).ask(LOST)
    assert (lost.closed_for, busy.closed_for) == ("SILENT", "")


async def test_a_peer_that_cried_wolf_is_not_believed_for_a_while(autojump_clock: MockClock) -> None:
    lost, fine = Line(LOST, None), Line(BUSY, 0.02)
    asked = check(lost, fine, paths=PathLimits(silence_pause=7.0))
    await asked.ask(LOST)
    await trio.sleep(6.9)
    for _ in range(20):
        await asked.ask(LOST)
    assert fine.asked == 1
    await trio.sleep(0.2)
    await asked.ask(LOST)
    await asked.ask(LOST)
    assert fine.asked == 2
    await asked.ask(BUSY)  # others are believed meanwhile
    assert fine.asked == 3


async def test_a_peer_that_is_not_believed_puts_itself_alone_in_question(autojump_clock: MockClock) -> None:
    first, again = Line(LOST, None), Line(LOST, 0.02)
    network = Lines(first)
    asked = SilenceCheck(cast(Any, network), Limits())
    await asked.ask(LOST)
    assert first.closed_for == "SILENT"
    other = Line(BUSY, 0.02)
    network.lines = (again, other)
    for _ in range(20):
        await asked.ask(LOST)
    assert (again.asked, again.closed_for, other.asked) == (20, "", 0)
    async with trio.open_nursery() as nursery:
        for _ in range(20):  # one round of it at a time, however many sessions it has
            nursery.start_soon(asked.ask, LOST)
    assert again.asked == 21


async def test_a_connection_that_dies_while_its_peer_is_not_believed_is_closed_all_the_same(
    autojump_clock: MockClock,
) -> None:
    """A direct path that was cut three times within seconds: the third cut has to show as soon as the first."""
    dead, relayed, other = Line(LOST, None), Line(LOST, 0.0), Line(BUSY, 0.0)
    asker = check(Line(LOST, None), other, relayed, dead)
    await asker.ask(LOST)
    again, swarm = Line(LOST, None), asker._swarm
    cast(Any, swarm).lines = (other, relayed, again)
    before, began = other.asked, trio.current_time()
    await asker.ask(LOST)  # within the pause
    assert again.closed_for == "SILENT"
    assert trio.current_time() - began < 2.0
    assert not relayed.closed_for
    assert other.asked == before
