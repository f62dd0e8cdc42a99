"""How often punches dial an address that only the peer vouches for, and one that a relay of ours attests."""

from __future__ import annotations

from itertools import count

from punchbridge.addresses import Endpoint, Proto
from punchbridge.config import PunchLimits
from punchbridge.reach.dials import AttemptDials, DialBudget, RunDials

LIMITS = PunchLimits()
NOBODY: frozenset[str] = frozenset()
PROTOS: tuple[Proto, ...] = ("tcp", "udp")


def at(host: str, port: int = 80) -> Endpoint:
    return Endpoint("ip4", host, port, "tcp")


def dials(attempt: AttemptDials, *endpoints: Endpoint, began: float = 0.0, error: str = "") -> int:
    """How many dials leave within the five seconds of an attempt, asked for all endpoints each 10 ms."""
    left = 0
    for step in range(500):
        for endpoint in endpoints:
            if attempt.ask(endpoint, began + step / 100) == "yes":
                left += 1
                if error:
                    attempt.refused(endpoint, error)
    return left


def test_an_address_gets_its_dials_of_an_attempt_and_of_a_run() -> None:
    budget, run = DialBudget(LIMITS, 5.0), RunDials()
    left = [dials(AttemptDials(budget, run, "x", NOBODY), at("11.9.0.1"), began=10.0 * number) for number in range(4)]
    assert left == [16, 16, 16, 0]
    assert AttemptDials(budget, run, "x", NOBODY).ask(at("11.9.0.1"), 100.0) == "never"


def test_each_transport_has_its_dials_and_all_of_them_count_for_whoever_asked() -> None:
    attempt = AttemptDials(DialBudget(LIMITS, 5.0), RunDials(), "x", NOBODY)
    assert dials(attempt, at("11.9.0.1"), Endpoint("ip4", "11.9.0.1", 80, "udp")) == 32
    crowd = AttemptDials(DialBudget(LIMITS, 5.0), RunDials(), "x", NOBODY)
    ends = [Endpoint("ip4", f"11.9.0.{n}", 80, proto) for n in range(1, 9) for proto in PROTOS]
    most = LIMITS.stranger_origin_dials + 5.0 / LIMITS.stranger_origin_interval
    assert LIMITS.stranger_origin_dials <= dials(crowd, *ends) <= most + 1


def test_a_dial_counts_for_the_packets_that_it_sends() -> None:
    budget, run = DialBudget(LIMITS, 5.0), RunDials()
    attempt, host = AttemptDials(budget, run, "x", NOBODY), at("11.9.0.1")
    assert [attempt.ask(host, 0.0, 6) for _ in range(3)] == ["yes", "yes", "never"]
    assert [attempt.ask(host, 0.0) for _ in range(5)] == ["yes"] * 4 + ["never"]
    others = AttemptDials(budget, RunDials(), "x", NOBODY)
    left = sum(others.ask(at(f"11.9.1.{n}"), 0.0, 6) == "yes" for n in range(1, 100))
    assert left == -(-(LIMITS.stranger_origin_dials - 16) // 6)  # what the last one takes too much is owed


def test_the_ports_of_one_ip_share_its_dials() -> None:
    attempt = AttemptDials(DialBudget(LIMITS, 5.0), RunDials(), "x", NOBODY)
    assert dials(attempt, *(at("11.9.0.1", port) for port in range(80, 84))) == 16


def test_dials_before_the_first_exchange_count_in_its_attempt() -> None:
    budget, run = DialBudget(LIMITS, 5.0), RunDials()
    before = AttemptDials(budget, run, "x", NOBODY)
    assert [before.ask(at("11.9.0.1"), 0.0) for _ in range(4)] == ["yes"] * 4
    assert dials(AttemptDials(budget, run, "x", NOBODY, run.dialled), at("11.9.0.1")) == 12


def test_an_attested_ip_is_dialled_as_often_as_an_attempt_allows() -> None:
    attempt = AttemptDials(DialBudget(LIMITS, 5.0), RunDials(), "x", frozenset({"11.0.0.7"}))
    assert dials(attempt, at("11.0.0.7"), error="ECONNREFUSED") > LIMITS.dials
    assert dials(attempt, at("11.9.0.1")) == 16


def test_an_ip_that_only_refuses_is_given_up_for_the_rest_of_the_run() -> None:
    budget, run = DialBudget(LIMITS, 5.0), RunDials()
    first = AttemptDials(budget, run, "x", NOBODY)
    assert dials(first, at("11.9.0.1"), error="ECONNREFUSED") == LIMITS.stranger_refusals
    second = AttemptDials(budget, run, "x", NOBODY)
    assert (dials(second, at("11.9.0.1")), second.given_up(at("11.9.0.1"))) == (0, "ECONNREFUSED")
    assert second.given_up(at("11.9.0.2")) == ""
    assert dials(AttemptDials(budget, RunDials(), "x", NOBODY), at("11.9.0.1"), began=60.0) == 16


def test_an_ip_at_which_the_peer_was_seen_is_not_given_up() -> None:
    seen = {"11.9.0.1"}
    budget, run = DialBudget(LIMITS, 5.0), RunDials(seen)
    left = [
        dials(AttemptDials(budget, run, "x", NOBODY), at("11.9.0.1"), began=10.0 * number, error="ECONNREFUSED")
        for number in range(4)
    ]
    assert left == [16, 16, 16, 0]


def test_strangers_of_one_origin_share_its_dials_whatever_they_call_themselves() -> None:
    budget, hosts = DialBudget(LIMITS, 5.0), (at(f"11.9.0.{number}") for number in count(1))
    left = sum(dials(AttemptDials(budget, RunDials(), "x", NOBODY), next(hosts)) for _ in range(20))
    assert LIMITS.stranger_origin_dials <= left <= LIMITS.stranger_origin_dials + 5 / LIMITS.stranger_origin_interval
    assert dials(AttemptDials(budget, RunDials(), "y", NOBODY), next(hosts)) == 16


def test_strangers_of_many_origins_share_the_dials_to_one_host() -> None:
    budget = DialBudget(LIMITS, 5.0)
    left = sum(dials(AttemptDials(budget, RunDials(), origin, NOBODY), at("11.9.0.1")) for origin in range(20))
    assert LIMITS.stranger_dials_per_run <= left <= LIMITS.stranger_dials_per_run + 5 / LIMITS.stranger_host_interval


def test_all_strangers_share_the_dials_of_the_host() -> None:
    budget = DialBudget(LIMITS, 5.0)
    victims = [AttemptDials(budget, RunDials(), number, NOBODY) for number in range(60)]
    left = sum(dials(one, at(f"11.9.1.{number}")) for number, one in enumerate(victims))
    assert LIMITS.stranger_dials <= left <= LIMITS.stranger_dials + 5 / LIMITS.stranger_interval
    assert victims[-1].withheld
    known = AttemptDials(budget, RunDials(), "z", frozenset({"11.0.0.7"}))
    assert dials(known, at("11.0.0.7")) > LIMITS.dials  # who is attested does not pay for strangers


def test_a_dial_that_did_not_leave_is_given_back() -> None:
    budget, run = DialBudget(LIMITS, 5.0), RunDials()
    attempt = AttemptDials(budget, run, "x", NOBODY)
    for _ in range(40):
        assert attempt.ask(at("11.9.0.1"), 0.0) == "yes"
        attempt.unused(at("11.9.0.1"))
    assert run.dialled == {("tcp", "11.9.0.1"): 0}
