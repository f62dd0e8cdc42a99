"""Giving way before a read: how often, and when not."""

from __future__ import annotations

from punchbridge.config import LocalLimits
from punchbridge.local.coalesce import Coalescer

LIMITS = LocalLimits(coalesce_most=0.008, coalesce_pause=0.05)


class Processor:
    """A clock that stands still but for the time that giving way takes."""

    def __init__(self, takes: float) -> None:
        self.now, self.takes, self.given = 0.0, takes, 0
        self.coalescer = Coalescer(LIMITS, lambda: self.now, self.give_way)

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
    processor = Processor(takes=LIMITS.coalesce_most / 4)
    processor.read_for(1.0, every=LIMITS.coalesce_most / 64)
    assert 0.4 < processor.given * processor.takes <= 0.5 + processor.takes


def test_a_thread_that_computes_is_given_way_to_once_in_a_while() -> None:
    processor = Processor(takes=2 * LIMITS.coalesce_most)
    processor.read_for(10 * (2 * LIMITS.coalesce_most + LIMITS.coalesce_pause), every=0.0005)
    assert 9 <= processor.given <= 11


def test_the_system_is_asked_when_nothing_else_is_said() -> None:
    Coalescer(LIMITS).before_read()
