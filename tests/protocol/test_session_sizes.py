"""How a session's two memories grow: by what the path was measured to carry, never beyond their bounds."""

from __future__ import annotations

import pytest

from punchbridge.config import SessionLimits
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import MAX_FRAME, REPLAYED
from punchbridge.sessions.incoming import Incoming
from punchbridge.sessions.outgoing import Outgoing
from tests.support.session_wires import joined

LIMITS = SessionLimits()

TRIP = 0.1
PIECE = bytes(64 * 1024)


def read_for(seconds: float, rate: float, budget: Budget | None = None) -> Incoming:
    """An end whose peer sends, and whose application reads, `rate` bytes a second."""
    incoming, now, step = Incoming(budget or Budget(LIMITS.budget), LIMITS), 0.0, len(PIECE) / rate
    while now < seconds:
        now += step
        incoming.data(incoming.received, memoryview(PIECE))
        incoming.read(len(PIECE))
        incoming.grow(now, TRIP)
    return incoming


@pytest.mark.parametrize(("rate", "grows"), [(1e6, False), (2e7, True), (4e8, True)])
def test_window_follows_the_rate_that_is_read_at(rate: float, grows: bool) -> None:
    window = read_for(5.0, rate).window
    assert (window > LIMITS.window_least) is grows
    assert window <= LIMITS.window_most
    # Enough for what the path carries in one round trip, and not for ever more.
    assert window >= min(rate * TRIP, LIMITS.window_most)
    assert window <= max(8 * rate * TRIP, LIMITS.window_least)


def test_window_stays_when_nobody_reads() -> None:
    incoming = Incoming(Budget(LIMITS.budget), LIMITS)
    while incoming.received + len(PIECE) <= incoming.edge:
        incoming.data(incoming.received, memoryview(PIECE))
        incoming.grow(0.001, TRIP)
    assert incoming.window == incoming.received == LIMITS.window_least


def sent_for(trips: int, trip: float, measured: float, budget: Budget | None = None) -> Outgoing:
    """An end that always has more to send, whose peer acknowledges all of it once a trip."""
    outgoing, now = Outgoing(budget or Budget(LIMITS.budget), LIMITS), 0.0
    for _ in range(trips):
        while outgoing.write(PIECE):
            pass
        outgoing.edge = outgoing.written
        while outgoing.next_frame() is not None:
            pass
        now += trip
        outgoing.acknowledge(outgoing.cursor, outgoing.edge, now, measured)
    return outgoing


def test_replay_memory_grows_where_it_was_the_limit_and_no_further_than_its_bound() -> None:
    assert sent_for(3, TRIP, TRIP).capacity > LIMITS.replay_least
    assert sent_for(40, TRIP, TRIP).capacity == LIMITS.replay_most


def test_replay_memory_stays_on_a_path_that_is_slower_than_it() -> None:
    assert sent_for(40, 10 * TRIP, TRIP).capacity == LIMITS.replay_least


def test_many_sessions_grow_together_by_no_more_than_the_budget() -> None:
    size = 3 * LIMITS.replay_most
    budget = Budget(size)
    ends = [sent_for(40, TRIP, TRIP, budget) for _ in range(6)] + [read_for(5.0, 4e8, budget) for _ in range(6)]
    outgoing = [end for end in ends if isinstance(end, Outgoing)]
    incoming = [end for end in ends if isinstance(end, Incoming)]
    grown = sum(end.capacity - LIMITS.floor for end in outgoing)
    grown += sum(end.window - LIMITS.floor for end in incoming)
    assert (grown, budget.left) == (size, 0)
    assert min(end.capacity for end in outgoing) >= LIMITS.floor
    assert min(end.window for end in incoming) >= LIMITS.floor
    for end in ends * 2:
        end.give_back()
    assert budget.left == size


def test_what_is_sent_again_comes_in_small_messages() -> None:
    """The peer waits for it; on a connection that has carried little a message of full size takes its time."""
    wires = joined()
    wires.dialler.write(bytes(200_000), wires.now)
    full = wires.dialler.output(1, 1 << 20, wires.now)
    assert max(sum(map(len, parts)) for parts in full) == MAX_FRAME
    wires.cut(1)
    generation = wires.attach()
    for who in ("dialler", "acceptor"):
        wires.flush(who, generation)
        wires.deliver(who, generation)
    wires.dialler.write(bytes(100_000), wires.now)
    again = wires.dialler.output(generation, 1 << 20, wires.now)
    sizes = [sum(map(len, parts)) for parts in again]
    assert sum(sizes) > 300_000
    assert max(sizes[:24]) <= REPLAYED
    assert max(sizes) > 2 * REPLAYED, "what was not sent before comes in full frames"
    wires.settle()
