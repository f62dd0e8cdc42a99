"""The connection table: limits, tickets, eviction, ranking. Pure, on plain values."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import address_group
from punchbridge.config import SwarmLimits
from punchbridge.identity import PeerId
from punchbridge.swarm.table import ConnectionTable, Refusal, Ticket

_ids = count(1)
A, B = (PeerId(b"\x12\x20" + bytes([n]) * 32) for n in (1, 2))


@dataclass(eq=False)
class Member:
    peer: PeerId
    path: Literal["relay", "direct"] = "direct"
    streams: int = 0

    def __post_init__(self) -> None:
        self.id = next(_ids)


def table(**limits: int) -> ConnectionTable[Member]:
    return ConnectionTable(SwarmLimits(**limits))


def admitted(t: ConnectionTable[Member], host: str) -> Ticket:
    ticket = t.admit_socket(host)
    assert isinstance(ticket, Ticket)
    return ticket


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
        ({"connections_per_address": 2}, Refusal.PER_ADDRESS),
        ({"half_open": 2}, Refusal.HALF_OPEN),
        ({"connections": 2}, Refusal.TOTAL),
    ],
)
def test_sockets_beyond_a_limit_are_refused_and_counted(limits: dict[str, int], refusal: Refusal) -> None:
    t = table(**limits)
    first, _ = admitted(t, "11.0.0.1"), admitted(t, "11.0.0.1")
    assert t.admit_socket("11.0.0.1") is refusal
    assert t.refused == {refusal: 1}
    t.discard(first)
    t.discard(first)
    admitted(t, "11.0.0.1")
    assert t.admit_socket("11.0.0.1") is refusal


def test_the_address_count_lasts_as_long_as_the_connection() -> None:
    t = table(connections_per_address=1)
    member = Member(A)
    t.add(member, admitted(t, "11.0.0.1"))
    assert t.half_open == 0
    assert t.admit_socket("11.0.0.1") is Refusal.PER_ADDRESS
    assert isinstance(t.admit_socket("11.0.0.2"), Ticket)
    t.remove(member)
    assert isinstance(t.admit_socket("11.0.0.1"), Ticket)


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
    assert admission.refused is Refusal.PER_PEER
    assert t.half_open == 0
    admitted(t, "11.0.0.1")


@given(st.lists(st.tuples(st.sampled_from("sdar"), st.integers(0, 5), st.integers(0, 3)), max_size=80))
def test_the_counts_follow_any_sequence(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order: no count goes wrong, and an emptied table admits everybody again."""
    t = table(connections=6, connections_per_address=3, connections_per_peer=2, half_open=3)
    tickets: list[Ticket] = []
    members: list[Member] = []
    for kind, index, host in steps:
        if kind == "s":
            ticket = t.admit_socket(f"11.0.0.{host}")
            if isinstance(ticket, Ticket):
                tickets.append(ticket)
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
