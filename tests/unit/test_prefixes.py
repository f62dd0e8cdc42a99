"""Places by a ladder of prefixes, and the counts of who was refused. Pure, on plain values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.tasks.prefixes import EVERYWHERE, Full, Places, PrefixBounds, PrefixRates, source
from punchbridge.tasks.refusals import Refusals, RefusedSource


@pytest.mark.parametrize(
    ("host", "prefixes"),
    [
        ("11.2.3.4", {"address": "11.2.3.4", "24": "11.2.3.0/24"}),
        ("::ffff:11.2.3.4", {"address": "11.2.3.4", "24": "11.2.3.0/24"}),
        ("64:ff9b::b02:304", {"address": "11.2.3.4", "24": "11.2.3.0/24"}),
        (
            "2600:1:2:3456:7::8",
            {"address": "2600:1:2:3456::/64", "56": "2600:1:2:3400::/56", "48": "2600:1:2::/48"},
        ),
        ("fe80::1%eth0", {"address": "fe80::/64", "56": "fe80::/56", "48": "fe80::/48"}),
        ("unknown", {"address": "unknown"}),
    ],
)
def test_the_prefixes_that_an_address_counts_for(host: str, prefixes: dict[str, str]) -> None:
    assert dict(source(host)) == prefixes


def places(**bounds: int) -> Places[str]:
    return Places(PrefixBounds(**bounds))


def fill(table: Places[str], *hosts: str) -> None:
    for host in hosts:
        assert table.full(source(host)) is None, host
        table.add(f"{host} {len(table)}", source(host))


def test_one_customer_with_a_56_gets_its_share_whatever_number_of_nets_it_shows() -> None:
    table = places(all=100, address=4, ipv6_56=6, ipv6_48=8)
    fill(table, *["2600:1:1:1::1"] * 4)
    assert table.full(source("2600:1:1:1:ffff::9")) == Full("address", "2600:1:1:1::/64")
    fill(table, "2600:1:1:2::1", "2600:1:1:3::1")
    assert table.full(source("2600:1:1:4::1")) == Full("56", "2600:1:1::/56")
    fill(table, "2600:1:1:100::1", "2600:1:1:200::1")
    assert table.full(source("2600:1:1:300::1")) == Full("48", "2600:1:1::/48")
    assert table.full(source("2600:1:2:1::1")) is None
    assert table.full(source("11.0.0.1")) is None


def test_the_narrowest_bound_is_named_since_a_place_there_makes_room_everywhere() -> None:
    table = places(all=2, address=2, ipv6_56=2, ipv6_48=2)
    fill(table, "2600:1:1:1::1", "2600:1:1:1::2")
    assert table.full(source("2600:1:1:1::3")) == Full("address", "2600:1:1:1::/64")
    assert table.full(source("2600:1:1:2::3")) == Full("56", "2600:1:1::/56")
    assert table.full(source("11.0.0.1")) == Full("all", EVERYWHERE)


def test_a_24_has_a_bound_only_while_places_are_short() -> None:
    table = places(all=10, address=1, ipv4_24=2, soft=5)
    fill(table, *(f"11.0.0.{n}" for n in range(5)))
    assert table.full(source("11.0.0.9")) == Full("24", "11.0.0.0/24")
    assert table.full(source("11.0.1.9")) is None


def test_whoever_comes_anew_takes_over_its_own_place() -> None:
    table = places(all=2, address=1)
    table.add("a", source("11.0.0.1"))
    table.add("b", source("11.0.0.2"))
    assert table.full(source("11.0.0.1"), besides="a") is None
    assert table.full(source("11.0.0.3"), besides="a") is None
    assert table.full(source("11.0.0.1"), besides="b") == Full("address", "11.0.0.1")
    assert table.full(source("11.0.0.3"), besides="stranger") == Full("all", EVERYWHERE)
    table.add("a", source("11.0.0.3"))
    assert (len(table), table.count("11.0.0.1"), table.count("11.0.0.3")) == (2, 0, 1)


def test_a_wider_prefix_has_at_least_as_many_places_as_a_narrower_one() -> None:
    wide = places(address=3, ipv6_56=1, ipv6_48=2)
    fill(wide, *["2600:1:1:1::1"] * 3)
    assert wide.full(source("2600:1:1:2::1")) == Full("56", "2600:1:1::/56")
    unbounded = places(address=0, ipv6_56=1, ipv6_48=1, ipv4_24=1)
    fill(unbounded, *["2600:1:1:1::1"] * 3, *["11.0.0.1"] * 3)


def test_the_oldest_and_the_fullest() -> None:
    table = places()
    hosts = ["2600:1:1:1::1", "2600:1:1:2::1", "2600:1:1:2::2", "11.0.0.1"]
    for host in hosts:
        table.add(host, source(host))
    assert table.oldest(EVERYWHERE) == hosts[0]
    assert table.oldest("2600:1:1:2::/64") == hosts[1]
    assert table.oldest("11.0.0.0/24") == hosts[3]
    assert table.oldest("12.0.0.0/24") is None
    assert table.fullest() == ("2600:1:1:2::/64", 2)
    assert table.fullest("2600:1:1::/56") == ("2600:1:1:2::/64", 2)
    assert table.fullest("2600:1:1:1::/64") == ("2600:1:1:1::/64", 1)
    assert table.fullest("12.0.0.1") == ("", 0)
    table.clear()
    assert (len(table), table.fullest(), table.oldest(EVERYWHERE)) == (0, ("", 0), None)


_hosts = st.sampled_from(
    ["11.0.0.1", "11.0.0.2", "11.0.1.1", "2600:1:1:1::1", "2600:1:1:2::1", "2600:1:1:100::1", "2600:1:2:1::1", "x"]
)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), _hosts), max_size=60))
def test_counts_and_order_follow_any_sequence(steps: list[tuple[bool, int, str]]) -> None:
    table: Places[int] = Places(PrefixBounds(all=5, address=2, ipv4_24=3, ipv6_56=3, ipv6_48=4, soft=2))
    held: dict[int, str] = {}
    for add, item, host in steps:
        held.pop(item, None)
        if add:
            held[item] = host
            table.add(item, source(host))
        else:
            table.discard(item)
    prefixes = {prefix: host for host in held.values() for _, prefix in source(host)}
    for prefix in prefixes:
        inside = [item for item, host in held.items() if prefix in dict(source(host)).values()]
        assert table.count(prefix) == len(inside)
        assert table.oldest(prefix) == inside[0]
    assert len(table) == len(held)
    assert table.oldest(EVERYWHERE) == next(iter(held), None)
    per_address = {source(host)[0][1]: 0 for host in held.values()}
    for host in held.values():
        per_address[source(host)[0][1]] += 1
    assert table.fullest()[1] == max(per_address.values(), default=0)
    for item in list(held):
        table.discard(item)
    assert table.fullest() == ("", 0)
    assert all(table.full(source(host)) is None for host in held.values())


def test_rates_of_an_address_and_of_the_nets_around_it() -> None:
    rates = PrefixRates(2, 1.0, 100)
    first = source("2600:1:1:1::1")
    assert [rates.take(first, 0.0) for _ in range(3)] == [True, True, False]
    assert rates.take(source("2600:1:1:2::1"), 0.0)
    assert rates.take(source("2600:1:1:2::1"), 0.0)
    assert not rates.take(source("2600:1:1:3::1"), 0.0), "the /56 has twice as many"
    assert rates.take(source("2600:1:1:100::1"), 0.0)
    assert rates.take(first, 1.0)
    assert not rates.take(first, 1.0)
    assert rates.take(source("11.0.0.1"), 0.0)


def test_an_address_that_comes_too_often_spends_nothing_of_its_neighbours() -> None:
    rates = PrefixRates(1, 1.0, 100)
    assert [rates.take(source("11.0.0.1"), 0.0) for _ in range(50)].count(True) == 1
    assert [rates.take(source(f"11.0.0.{n}"), 0.0) for n in range(2, 20)].count(True) == 7


@pytest.mark.parametrize(("burst", "interval"), [(0, 1.0), (1, 0.0)])
def test_a_rate_of_zero_is_none(burst: int, interval: float) -> None:
    rates = PrefixRates(burst, interval, 10)
    assert all(rates.take(source("11.0.0.1"), 0.0) for _ in range(100))


def test_refusals_are_counted_by_reason_and_prefix_with_the_last_peer() -> None:
    refusals = Refusals()
    refusals.add("half_open", "11.0.0.1")
    refusals.add("reserve_full", "11.0.0.2", "12D3KooWA")
    refusals.add("reserve_full", "11.0.0.2", "12D3KooWB")
    refusals.add("reserve_full", "11.0.0.2")
    assert refusals.counts == {"half_open": 1, "reserve_full": 3}
    assert refusals.most(1) == (RefusedSource("reserve_full", "11.0.0.2", 3, "12D3KooWB"),)
    assert refusals.most(1)[0].as_dict() == {
        "reason": "reserve_full",
        "from": "11.0.0.2",
        "times": 3,
        "peer": "12D3KooWB",
    }
    assert "peer" not in refusals.most(2)[1].as_dict()


def test_what_was_told_is_not_told_again() -> None:
    refusals = Refusals()
    refusals.add("half_open", "11.0.0.1")
    assert refusals.untold(8) == ({"half_open": 1}, (RefusedSource("half_open", "11.0.0.1", 1),))
    assert refusals.untold(8) == ({}, ())
    refusals.add("half_open", "11.0.0.2")
    assert refusals.untold(8) == ({"half_open": 1}, (RefusedSource("half_open", "11.0.0.2", 1),))
    assert refusals.counts == {"half_open": 2}


@given(st.lists(st.integers(0, 600), max_size=900))
def test_a_crowd_of_prefixes_hides_nobody(crowd: list[int]) -> None:
    """Memory is bounded, a count is never too low, and whoever makes a fifth of all refusals is among those told."""
    refusals = Refusals()
    for place, number in enumerate([*crowd, *[-1] * 4]):
        refusals.add("half_open", f"net {number}")
        if place % 4 == 0:
            refusals.add("half_open", "the flood")
    told = {one.prefix: one.times for one in refusals.most(1000)}
    assert len(told) <= 256
    assert told["the flood"] >= (len(crowd) + 4 + 3) // 4
    assert refusals.counts["half_open"] == len(crowd) + 4 + (len(crowd) + 4 + 3) // 4
