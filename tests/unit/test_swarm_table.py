"""The connection table: limits, tickets, eviction, ranking. Pure, on plain values."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import address_group
from punchbridge.config import SwarmLimits
from punchbridge.identity import PeerId
from punchbridge.swarm.table import ConnectionRefusal, ConnectionTable, Ticket

_ids = count(1)
LATER = SwarmLimits().half_open_grace
A, B = (PeerId(b"\x12\x20" + bytes([n]) * 32) for n in (1, 2))


@dataclass(eq=False)
class Member:
    peer: PeerId
    path: Literal["relay", "direct"] = "direct"
    streams: int = 0

    def __post_init__(self) -> None:
        self.id = next(_ids)


def table(**limits: Any) -> ConnectionTable[Member]:
    return ConnectionTable(SwarmLimits(**limits))


def admitted(t: ConnectionTable[Member], host: str) -> Ticket:
    ticket = t.admit_socket(host, 0.0).ticket
    assert ticket is not None
    return ticket


class Socket:
    """Says nothing until `spoken`."""

    def __init__(self) -> None:
        self.spoken = self.asked = False

    def silent(self) -> bool:
        self.asked = True
        return not self.spoken


def mute(t: ConnectionTable[Member], *hosts: str) -> list[Ticket]:
    return [ticket for host in hosts if (ticket := t.admit_socket(host, 0.0, Socket().silent).ticket) is not None]


def test_ranking_puts_direct_before_relayed_then_newest() -> None:
    t = table()
    members = [Member(A, "direct"), Member(A, "relay"), Member(A, "direct"), Member(A, "relay")]
    for member in members:
        t.add(member)
    assert t.ranked(A) == (members[2], members[0], members[3], members[1])
    assert t.ranked(B) == ()


def test_a_removed_member_is_nowhere() -> None:
    t = table()
    member = Member(A)
    t.add(member)
    t.remove(member)
    t.remove(member)
    assert (t.members(), t.members(A), t.get(member.id), len(t)) == ((), (), None, 0)


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({"connections_per_address": 2}, ConnectionRefusal.PER_ADDRESS),
        ({"half_open": 2}, ConnectionRefusal.HALF_OPEN),
        ({"connections": 2}, ConnectionRefusal.TOTAL),
    ],
)
def test_sockets_beyond_a_limit_are_refused_and_counted(limits: dict[str, int], refusal: ConnectionRefusal) -> None:
    t = table(**limits)
    first, _ = admitted(t, "11.0.0.1"), admitted(t, "11.0.0.1")
    assert t.admit_socket("11.0.0.1", 0.0).refused is refusal
    assert t.refusals.counts == {refusal: 1}
    assert [one.prefix for one in t.refusals.most(1)] == ["11.0.0.1"]
    t.discard(first)
    t.discard(first)
    admitted(t, "11.0.0.1")
    assert t.admit_socket("11.0.0.1", 0.0).refused is refusal


def test_the_address_count_lasts_as_long_as_the_connection() -> None:
    t = table(connections_per_address=1)
    member = Member(A)
    t.add(member, admitted(t, "11.0.0.1"))
    assert t.half_open == 0
    assert t.admit_socket("11.0.0.1", 0.0).refused is ConnectionRefusal.PER_ADDRESS
    admitted(t, "11.0.0.2")
    t.remove(member)
    admitted(t, "11.0.0.1")


def test_ipv6_counts_by_the_64_and_mapped_ipv4_as_ipv4() -> None:
    assert address_group("2001:db8:1:2::1") == address_group("2001:db8:1:2:ffff::9")
    assert address_group("2001:db8:1:2::1") != address_group("2001:db8:1:3::1")
    assert address_group("::ffff:11.0.0.1") == address_group("11.0.0.1") == "11.0.0.1"
    assert address_group("fe80::1%eth0") == address_group("fe80::2")


def test_a_peer_at_its_limit_replaces_its_own_oldest_idle_connection() -> None:
    t = table(connections_per_peer=2)
    busy, idle, other = Member(A, streams=1), Member(A), Member(B)
    for member in (busy, idle, other):
        t.add(member)
    late = Member(A)
    admission = t.add(late)
    assert admission.evict == (idle,)
    assert t.members(A) == (busy, late)
    assert t.members(B) == (other,)


def test_a_peer_at_its_limit_with_busy_connections_is_refused_and_gives_the_ticket_back() -> None:
    t = table(connections_per_peer=1, connections_per_address=1)
    t.add(Member(A, streams=1))
    admission = t.add(Member(A), admitted(t, "11.0.0.1"))
    assert admission.refused is ConnectionRefusal.PER_PEER
    assert t.half_open == 0
    admitted(t, "11.0.0.1")


def test_the_oldest_that_has_said_nothing_for_a_while_goes_when_places_are_short() -> None:
    t = table(half_open=3)
    spoken = Socket()
    first = t.admit_socket("11.0.0.1", 0.0, spoken.silent).ticket
    second, third = mute(t, "11.0.0.1", "11.0.0.1")
    spoken.spoken = True
    arrival = t.admit_socket("11.0.0.1", LATER, Socket().silent)
    assert (arrival.evict, arrival.refused) == (second, None)
    assert t.half_open == 3
    spoken.asked = False
    assert t.admit_socket("11.0.0.1", LATER).evict is third
    assert not spoken.asked, "who has spoken is not asked again"
    assert first is not None
    assert first.half_open
    assert t.admit_socket("11.0.0.1", LATER).refused is ConnectionRefusal.HALF_OPEN, (
        "the silence of the others is young"
    )
    assert t.refusals.counts == {"half_open": 3}
    t.discard(second)
    assert t.half_open == 3


def test_whoever_has_only_just_come_gives_way_to_none_who_holds_as_many() -> None:
    """An honest peer is silent for a moment as well; a crowd that has spoken must not push it out."""
    t = table(half_open=4)
    for _ in range(3):
        admitted(t, "11.0.0.1")
    (honest,) = mute(t, "11.9.9.9")
    assert t.admit_socket("11.0.0.1", 0.0).refused is ConnectionRefusal.HALF_OPEN
    assert honest.half_open
    assert t.admit_socket("11.0.0.2", 0.0).evict is not honest


def test_among_many_addresses_with_one_place_each_the_oldest_silent_one_goes() -> None:
    t = table(half_open=4)
    first, *_ = mute(t, *(f"11.0.0.{n}" for n in range(4)))
    assert t.admit_socket("12.0.0.1", 0.0).evict is first
    t = table(half_open=4)
    for n in range(4):
        admitted(t, f"11.0.0.{n}")
    assert t.admit_socket("12.0.0.1", LATER).refused is ConnectionRefusal.HALF_OPEN, "all of them have spoken"


def test_a_newcomer_of_another_address_takes_a_place_of_whoever_holds_most() -> None:
    """256 sockets that have said one line are no more in the way than 256 that have said none."""
    t = table(half_open=4)
    crowd = [admitted(t, "11.0.0.1") for _ in range(4)]
    assert t.admit_socket("11.0.0.1", 0.0).refused is ConnectionRefusal.HALF_OPEN
    assert t.admit_socket("12.0.0.1", 0.0).evict is crowd[0]
    assert t.admit_socket("12.0.0.1", 0.0).evict is crowd[1]
    assert t.admit_socket("12.0.0.1", 0.0).refused is ConnectionRefusal.HALF_OPEN, "it would hold as many"
    assert t.admit_socket("12.0.0.2", 0.0).evict in (crowd[2], None)


@pytest.mark.parametrize("what", ["half_open", "connections"])
@pytest.mark.parametrize(
    ("step", "shares", "hosts", "newcomer"),
    [
        ("address", (2, 0, 0), ("11.0.0.1", "11.0.0.1"), "11.0.0.1"),
        ("address", (2, 2, 2), ("2600:1:1:1::1", "2600:1:1:1::2"), "2600:1:1:1::3"),
        ("56", (1, 2, 2), ("2600:1:1:1::1", "2600:1:1:2::1"), "2600:1:1:3::1"),
        ("48", (1, 1, 2), ("2600:1:1:100::1", "2600:1:1:200::1"), "2600:1:1:300::1"),
    ],
)
def test_a_customer_at_its_share_makes_room_for_itself_only(
    what: str, step: str, shares: tuple[int, ...], hosts: tuple[str, str], newcomer: str
) -> None:
    t = table(**{f"{what}_per_{one}": share for one, share in zip(("address", "56", "48"), shares, strict=True)})
    first, _ = mute(t, *hosts)
    (honest,) = mute(t, "11.9.9.9")
    assert t.admit_socket(newcomer, LATER).evict is first
    assert t.refusals.counts == {f"{what}_per_{step}": 1}
    assert honest.half_open


@pytest.mark.parametrize("what", ["half_open", "connections"])
def test_a_24_shares_only_when_half_of_all_places_are_taken(what: str) -> None:
    t = table(**{what: 8, f"{what}_per_address": 1, f"{what}_per_24": 2})
    first, *_ = mute(t, *(f"11.0.0.{n}" for n in range(4)))
    assert t.half_open == 4
    assert t.admit_socket("11.0.0.9", 0.0).evict is first
    assert t.refusals.counts == {f"{what}_per_24": 1}
    assert t.admit_socket("11.0.1.9", 0.0).evict is None


def test_whoever_comes_too_often_takes_no_place_and_costs_nobody_one() -> None:
    t = table(handshakes_burst=2, handshakes_interval=1.0, half_open=2)
    first, second = mute(t, "11.0.0.1", "11.0.0.1")
    arrival = t.admit_socket("11.0.0.1", 0.5, Socket().silent)
    assert (arrival.refused, arrival.evict, t.half_open) == (ConnectionRefusal.RATE, None, 2)
    assert t.refusals.counts == {"handshakes": 1}
    assert t.admit_socket("11.0.0.1", 1.0).evict is first
    assert t.admit_socket("11.0.0.2", 1.0).evict is second


def test_standing_connections_of_others_never_make_room() -> None:
    t = table(connections_per_address=1, connections_per_56=2)
    for host in ("2600:1:1:1::1", "2600:1:1:2::1"):
        t.add(Member(A), admitted(t, host))
    arrival = t.admit_socket("2600:1:1:3::1", 0.0)
    assert (arrival.refused, arrival.evict) == (ConnectionRefusal.PER_56, None)
    assert len(t) == 2


@given(st.lists(st.tuples(st.sampled_from("sdar"), st.integers(0, 5), st.integers(0, 3)), max_size=80))
def test_the_counts_follow_any_sequence(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order: no count goes wrong, and an emptied table admits everybody again."""
    t = table(connections=6, connections_per_address=3, connections_per_peer=2, half_open=3)
    tickets: list[Ticket] = []
    members: list[Member] = []
    for kind, index, host in steps:
        if kind == "s":
            arrival = t.admit_socket(f"11.0.{host % 2}.{host}", 0.0, Socket().silent if host == 3 else lambda: False)
            assert (arrival.ticket is None) == (arrival.refused is not None)
            if arrival.evict is not None:
                tickets.remove(arrival.evict)
            if arrival.ticket is not None:
                tickets.append(arrival.ticket)
        elif kind == "d" and tickets:
            t.discard(tickets.pop(index % len(tickets)))
        elif kind == "a":
            member = Member(A if host % 2 else B)
            admission = t.add(member, tickets.pop(index % len(tickets)) if tickets else None)
            members = [m for m in members if m not in admission.evict]
            members += [member] * (admission.refused is None)
        elif kind == "r" and members:
            t.remove(members.pop(index % len(members)))
        assert t.half_open == len(tickets) <= 3
        assert set(t.members()) == set(members)
        assert all(len(t.members(peer)) <= 2 for peer in (A, B))
    for ticket in tickets:
        t.discard(ticket)
    for member in members:
        t.remove(member)
    for _ in range(3):
        admitted(t, "11.0.0.0")


# --- when places are short --------------------------------------------------------------------------------


def arrive(t: ConnectionTable[Member], at: float, *, stranger: bool = False, streams: int = 0) -> Member:
    """A peer of its own, from an address of its own, which is in the table when it is not refused."""
    member = Member(PeerId(b"\x12\x20" + next(_ids).to_bytes(32, "big")), streams=streams)
    ticket = t.admit_socket(f"11.0.{member.id % 200}.{member.id // 200 + 1}", at).ticket
    assert ticket is not None
    admission = t.add(member, ticket, now=at, stranger=stranger)
    for old in admission.evict:
        assert t.get(old.id) is None
    return member


def standing(t: ConnectionTable[Member], *members: Member) -> list[bool]:
    return [t.get(member.id) is not None for member in members]


def test_in_the_last_eighth_the_oldest_idle_connection_gives_way() -> None:
    t = table(connections=16)
    dialled = Member(A)
    t.add(dialled)
    busy, *idle = [arrive(t, 0.0, streams=number == 0) for number in range(13)]
    assert len(t) == 14
    first = arrive(t, 100.0)
    assert standing(t, dialled, busy, *idle[:2], first) == [True, True, False, True, True]
    assert t.refusals.counts == {ConnectionRefusal.TOTAL: 1}
    arrive(t, 100.0)
    assert standing(t, *idle[:3]) == [False, False, True]
    assert len(t) == 14


def test_without_an_idle_one_there_is_room_until_all_places_are_taken() -> None:
    t = table(connections=16)
    for _ in range(14):
        arrive(t, 0.0, streams=1)
    fresh = [arrive(t, 1.0) for _ in range(2)]
    assert standing(t, *fresh) == [True, True], "they have only just come, so they do not give way either"
    assert t.add(Member(B), now=1.0).refused is ConnectionRefusal.TOTAL
    handshakes = [t.admit_socket(f"11.9.0.{number}", 1.0).refused for number in range(3)]
    assert handshakes == [None, None, ConnectionRefusal.TOTAL]


def test_without_an_idle_one_whoever_holds_most_makes_room_for_others() -> None:
    t = table(connections=16, connections_per_address=0, handshakes_burst=0)

    def come(host: str, *, streams: int = 0) -> Member:
        member = Member(PeerId(b"\x12\x20" + next(_ids).to_bytes(32, "big")), streams=streams)
        if t.add(member, admitted(t, host), now=1.0).refused is not None:
            assert t.get(member.id) is None
        return member

    lone = come("11.0.0.1")
    busy, *many = [come("11.0.0.2", streams=1 - bool(number)) for number in range(13)]
    newcomer = come("11.0.0.3")
    assert standing(t, lone, newcomer, busy, *many[:2]) == [True, True, True, False, True]
    again = come("11.0.0.2")
    assert standing(t, lone, newcomer, again) == [True, True, True], "there is room still"
    others = [come(f"11.0.1.{number}") for number in range(11)]
    assert all(standing(t, lone, newcomer, busy, *others))
    assert standing(t, *many, again).count(True) == 1
    come("11.0.2.1")
    assert t.crowding("11.0.2.2") is None, "nobody holds more than the newcomer would"


def test_strangers_go_first_and_take_no_place_of_anybody_else() -> None:
    t = table(connections=16, idle_grace=10.0)
    known = [arrive(t, 0.0) for _ in range(13)]
    stranger = arrive(t, 5.0, stranger=True)
    late = arrive(t, 10.0, stranger=True)
    assert standing(t, stranger, late, *known) == [True, False] + [True] * 13, "refused: nobody of them gives way"
    assert t.refusals.counts == {ConnectionRefusal.STRANGER: 1}
    newer = arrive(t, 20.0, stranger=True)
    assert standing(t, stranger, newer) == [False, True], "an old stranger gives way to a new one"
    arrive(t, 40.0)
    assert standing(t, newer, *known) == [False] + [True] * 13


def test_who_is_let_in_by_a_list_meanwhile_is_no_stranger() -> None:
    t = table(connections=16)
    [arrive(t, 0.0, streams=1) for _ in range(13)]
    guest = arrive(t, 0.0, stranger=True)
    t.admitted(lambda member: member is guest)
    refused = arrive(t, 100.0, stranger=True)
    assert standing(t, guest, refused) == [True, False]


def test_a_keeper_says_what_is_of_use() -> None:
    """Whoever does nothing but hold a stream open gives way too, after those that hold none."""
    t = table(connections=16)
    useful = [arrive(t, 0.0) for _ in range(10)]
    pinging, *idle = [arrive(t, 0.0, streams=1 - bool(number)) for number in range(4)]
    t.keepers.append(lambda member: member in useful)
    for number in range(2):
        arrive(t, 5.0 + number, streams=1)  # too soon for anybody to give way
    assert standing(t, pinging, *idle) == [True] * 4
    for number in range(1, 5):
        arrive(t, 100.0 * number, streams=1)
        assert standing(t, *idle, pinging).count(False) == number
    assert standing(t, *useful) == [True] * 10


def test_looking_in_vain_is_not_repeated_at_once() -> None:
    t = table(connections=16)
    asked: list[Member] = []

    def keep(member: Member) -> bool:
        asked.append(member)
        return True

    t.keepers.append(keep)
    for _ in range(14):
        arrive(t, 0.0)
    arrive(t, 100.0)
    seen = len(asked)
    arrive(t, 100.1)
    assert len(asked) == seen > 0
    t.admit_socket("11.9.0.1", 102.0)
    assert t.idle(102.0, stranger=False) is None
    assert len(asked) > seen


def test_with_half_of_what_is_for_newcomers_taken_a_place_is_crowded() -> None:
    """In all, around the address, or by the rate of its handshakes."""
    t = table(half_open=8, half_open_per_address=4, half_open_per_24=6)
    near, far = "11.0.0.1", "11.9.9.9"
    admitted(t, near)
    assert not t.crowded(near, 0.0)
    tickets = [admitted(t, near)]
    assert (t.crowded(near, 0.0), t.crowded(far, 0.0)) == (True, False)
    tickets += [admitted(t, host) for host in ("11.1.0.1", "11.2.0.1")]
    assert t.crowded(far, 0.0)
    for ticket in tickets:
        t.discard(ticket)
    assert not t.crowded(near, 0.0)


def test_with_half_of_its_handshakes_spent_an_address_is_crowded_until_they_are_back() -> None:
    t = table(handshakes_burst=4, handshakes_interval=1.0, half_open=0, half_open_per_address=0)
    admitted(t, "11.0.0.1")
    assert not t.crowded("11.0.0.1", 0.0)
    admitted(t, "11.0.0.1")
    assert t.crowded("11.0.0.1", 0.0)
    assert not t.crowded("11.0.0.1", 1.0)
    assert not table(half_open=0, half_open_per_address=0, handshakes_burst=0).crowded("11.0.0.1", 0.0)
