"""Giving way before a read: how often, and when not."""

from __future__ import annotations

from punchbridge.limits.rpc import COALESCE_MOST, COALESCE_PAUSE
from punchbridge.local.coalesce import Coalescer


class Processor:
    """A clock that stands still but for the time that giving way takes."""

    def __init__(self, takes: float) -> None:
        self.now, self.takes, self.given = 0.0, takes, 0
        self.coalescer = Coalescer(lambda: self.now, self.give_way)

    def give_way(self) -> None:
        self.given += 1
        self.now += self.takes

    def read_for(self, seconds: float, every: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.coalescer.before_read()
            self.now += every


def test_where_nobody_else_runs_each_read_gives_way() -> None:
    processor = Processor(takes=0.0)
    processor.read_for(0.1, every=0.001)
    assert processor.given == 100


def test_many_sockets_give_half_of_the_time_away_at_most() -> None:
    processor = Processor(takes=COALESCE_MOST / 4)
    processor.read_for(1.0, every=COALESCE_MOST / 64)
    assert 0.4 < processor.given * processor.takes <= 0.5 + processor.takes


def test_a_thread_that_computes_is_given_way_to_once_in_a_while() -> None:
    processor = Processor(takes=2 * COALESCE_MOST)
    processor.read_for(10 * (2 * COALESCE_MOST + COALESCE_PAUSE), every=0.0005)
    assert 9 <= processor.given <= 11


def test_the_system_is_asked_when_nothing_else_is_said() -> None:
    Coalescer().before_read()
