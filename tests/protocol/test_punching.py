"""When a peer is punched, who gives way, and what follows: the decider alone, with a model of a peer beside it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from punchbridge.config import Punch, PunchLimits
from punchbridge.events import Role
from punchbridge.identity import Identity
from punchbridge.reach.punching import (
    After,
    Exchange,
    Punching,
    PunchOutcome,
    PunchRefusal,
    Run,
    Standing,
    Start,
    Wait,
)
from punchbridge.verdict import TABLE, Code, Verdict

LIMITS = PunchLimits()
PEER = Identity.generate().peer_id
CIRCUIT = Standing(inbound=7)
DIRECT = Standing(inbound=7, direct=True)
GONE = Standing()


def punching(*, gives_way: bool = False, retry_most: float = 100.0) -> Punching:
    numbers = itertools.count(1)
    punch = Punch(attempts=3, retry=10.0, retry_most=retry_most)
    return Punching(punch, LIMITS, gives_way=gives_way, number_run=lambda: next(numbers))


def outcome(
    code: Code | None,
    *,
    final: bool = True,
    side: Role = "initiator",
    retry_in: float | None = None,
    ended: float = 0.0,
) -> PunchOutcome:
    verdict = None if code is None else Verdict(code, retry_in=retry_in)
    return PunchOutcome(PEER, verdict, 1, side, final, 0.1, ended, circuit=7)


def fails(one: Punching, now: float, code: Code = Code.SYN_FILTERED) -> After:
    """A run of ours that begins and fails at once."""
    step = one.decide(CIRCUIT, now, 0.0)
    assert isinstance(step, Start)
    return one.end(one.begin(), outcome(code, ended=now), step.pause, now, 0.0, overtaken=False, direct=False)


def test_a_circuit_is_punched_over_at_once_and_a_peer_without_one_never() -> None:
    one = punching()
    assert one.decide(GONE, 0.0, 0.0) == Wait("NO_CIRCUIT")
    assert one.decide(CIRCUIT, 0.0, 0.0) == Start(7, 10.0)
    assert one.decide(DIRECT, 0.0, 0.0) == Wait("DIRECT")


def test_the_pause_doubles_up_to_its_maximum_and_a_fresh_circuit_does_not_shorten_it() -> None:
    one, now, pauses = punching(retry_most=35.0), 0.0, []
    for _ in range(4):
        after = fails(one, now)
        pauses.append(after.pause)
        held = one.decide(Standing(inbound=8), now, 0.0)
        assert held == Wait("HOLD", now + after.pause)
        now += after.pause
    assert pauses == [10.0, 20.0, 35.0, 35.0]


def test_a_failure_that_no_retry_mends_is_held_for_the_longest_pause() -> None:
    one = punching()
    code = next(code for code, row in TABLE.items() if not row.retry and code is not Code.CANCELLED)
    fails(one, 0.0, code)
    assert one.decide(CIRCUIT, 0.0, 0.0) == Wait("HOLD", 100.0)


@pytest.mark.parametrize("code", [Code.RELAY_LOST, Code.CANCELLED])
def test_what_is_no_fault_of_the_punch_is_followed_by_the_next_run_at_once(code: Code) -> None:
    one = punching()
    fails(one, 0.0, code)
    assert one.decide(CIRCUIT, 0.0, 0.0) == Start(7, 10.0)


def test_after_the_loss_of_the_direct_connection_things_settle_and_the_pause_is_small_again() -> None:
    one = punching()
    fails(one, 0.0)
    one.decide(DIRECT, 1.0, 0.0)
    assert one.decide(CIRCUIT, 2.0, 0.3) == Wait("SETTLE", 2.3 + LIMITS.settle)
    assert one.decide(CIRCUIT, 2.1, 0.9) == Wait("SETTLE", 2.3 + LIMITS.settle)
    assert one.decide(CIRCUIT, 2.4 + LIMITS.settle, 0.0) == Start(7, 10.0)


def test_a_peer_that_tells_that_it_can_is_punched_at_once_after_that_refusal_only() -> None:
    for code, waits in ((Code.PEER_UNSUPPORTED, False), (Code.SYN_FILTERED, True)):
        one = punching()
        fails(one, 0.0, code)
        one.supported()
        assert isinstance(one.decide(CIRCUIT, 1.0, 0.0), Wait) is waits


def test_dials_stay_between_attempts_for_the_next_run_after_it_and_else_are_closed() -> None:
    for told, overtaken, dials in (
        (outcome(Code.SYN_FILTERED), False, "for the next run"),
        (outcome(Code.SYN_FILTERED, final=False), False, "stay"),
        (outcome(Code.CANCELLED, final=False), False, "close"),
        (outcome(Code.CANCELLED, final=False), True, "stay"),
        (outcome(None), False, "close"),
        (None, False, "close"),
        (None, True, "stay"),
    ):
        one = punching()
        after = one.end(one.begin(), told, 10.0, 0.0, 0.0, overtaken=overtaken, direct=False)
        assert after.dials == dials, told
        assert after.fallback is (dials == "for the next run")


def test_exchanges_are_counted_into_runs_on_each_circuit_and_bounded_by_the_minute() -> None:
    one = punching()
    seen = []
    for number in range(LIMITS.exchanges_per_minute):
        exchange = one.admit(3, float(number))
        assert isinstance(exchange, Exchange)
        seen.append((exchange.number, exchange.attempt, exchange.run.id, exchange.pause))
    assert seen[:5] == [(1, 1, 1, 10.0), (2, 2, 1, 10.0), (3, 3, 1, 10.0), (4, 1, 2, 20.0), (5, 2, 2, 20.0)]
    refused = one.admit(3, 59.0)
    assert isinstance(refused, PunchRefusal)
    assert refused.reason == "RATE"
    assert isinstance(one.admit(3, 60.0), Exchange)
    one.circuit_closed(3)
    again = one.admit(3, 61.0)
    assert isinstance(again, Exchange)
    assert (again.number, again.attempt) == (1, 1)


@pytest.mark.parametrize("gives_way", [True, False])
@pytest.mark.parametrize("exchanging", [True, False])
def test_of_two_exchanges_that_meet_one_is_given_up_and_a_run_that_waits_refuses_nobody(
    gives_way: bool, exchanging: bool
) -> None:
    one = punching(gives_way=gives_way)
    one.begin().exchanging = exchanging
    refused = isinstance(one.admit(3, 0.0), PunchRefusal)
    assert refused is (exchanging and not gives_way)
    other = punching(gives_way=not gives_way)
    other.begin().exchanging = True
    # When both are on their way, the refused side knows that the other one's comes.
    assert other.yields(dialled=True) is not gives_way
    assert not other.yields(dialled=False)


def test_a_waiter_is_answered_by_a_run_that_it_waited_for() -> None:
    one = punching()
    assert one.answer(None, 7, 1000.0) is None
    fails(one, 0.0)
    last = one.last
    assert last is not None
    assert one.answer(None, 7, 1000.0) is last.verdict
    run = one.begin()
    assert one.answer(None, 7, 1000.0) is None  # it may still succeed
    one.end(run, outcome(Code.RESET_BY_NAT, final=False), 10.0, 1.0, 0.0, overtaken=False, direct=False)
    assert one.answer(None, 7, 1000.0) is None  # the run goes on elsewhere


@pytest.mark.parametrize(
    ("circuit", "retry_in", "deadline", "answers"),
    [
        (7, 30.0, 20.0, True),  # the next run begins too late for the waiter
        (7, 30.0, 40.0, False),
        (7, None, 1000.0, True),  # no run will begin
        (8, None, 1000.0, False),  # a fresh circuit: a run begins over it
        (None, None, 1000.0, False),
    ],
)
def test_an_earlier_run_answers_only_while_no_other_can_begin_in_time(
    circuit: int | None, retry_in: float | None, deadline: float, answers: bool
) -> None:
    one = punching()
    one.end(one.begin(), outcome(Code.SYN_FILTERED, retry_in=retry_in), 30.0, 0.0, 0.0, overtaken=False, direct=False)
    assert (one.answer(one.last, circuit, deadline) is not None) is answers


def test_a_lost_relay_never_answers_for_a_later_waiter() -> None:
    one = punching()
    one.end(one.begin(), outcome(Code.RELAY_LOST), 30.0, 0.0, 0.0, overtaken=False, direct=False)
    assert one.answer(one.last, 7, 1000.0) is None


class Peer(RuleBasedStateMachine):
    """Connections come and go, runs begin and end, exchanges of the peer come in between."""

    def __init__(self) -> None:
        super().__init__()
        self.one = punching()
        self.now = 0.0
        self.standing = GONE
        self.under_way: list[Run] = []
        self.not_before = 0.0
        self.failures = 0

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 9.0, 60.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(inbound=st.sampled_from([None, 7, 8]), direct=st.booleans())
    def connections_change(self, inbound: int | None, direct: bool) -> None:
        before, self.standing = self.standing, replace(self.standing, inbound=inbound, direct=direct)
        self.one.decide(self.standing, self.now, 0.0)
        if before.direct and not direct:
            self.not_before = self.now + LIMITS.settle

    @rule()
    def the_service_asks(self) -> None:
        step = self.one.decide(self.standing, self.now, 0.0)
        if isinstance(step, Start):
            assert not self.under_way
            assert self.now >= self.not_before
            assert step.circuit == self.standing.inbound
            assert not self.standing.direct
            self.under_way.append(self.one.begin())
        elif step.until is not None:
            assert step.until > self.now
        if self.standing.inbound is None:
            assert step == Wait("NO_CIRCUIT")

    @rule()
    def the_peer_opens_an_exchange(self) -> None:
        exchange = self.one.admit(3, self.now)
        if isinstance(exchange, Exchange):
            self.under_way.append(exchange.run)
            assert 1 <= exchange.attempt <= 3

    @precondition(lambda self: self.under_way)
    @rule(code=st.sampled_from([None, Code.SYN_FILTERED, Code.CANCELLED, Code.RELAY_LOST]), final=st.booleans())
    def the_oldest_ends(self, code: Code | None, final: bool) -> None:
        run = self.under_way.pop(0)
        told = outcome(code, final=final or code is None, side=run.side)
        overtaken = bool(self.under_way)
        self.one.end(run, told, 10.0, self.now, 0.0, overtaken=overtaken, direct=self.standing.direct)
        if run.side == "responder" or code is None:
            self.not_before = max(self.not_before, self.now + LIMITS.settle)
        elif code is Code.SYN_FILTERED:
            self.not_before = max(self.not_before, self.now + 10.0) if not self.standing.direct else self.not_before

    @invariant()
    def the_newest_is_the_one_under_way(self) -> None:
        assert self.one.run is (self.under_way[-1] if self.under_way else None)

    @invariant()
    def nobody_is_answered_while_something_is_under_way(self) -> None:
        if self.under_way:
            assert self.one.answer(None, 7, 1e9) is None


TestPeer = Peer.TestCase
