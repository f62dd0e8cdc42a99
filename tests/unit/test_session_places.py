"""Places of accepted sessions: who has to go first, and what a relay's callers may hold together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from punchbridge.config import SessionLimits
from punchbridge.identity import Identity, PeerId
from punchbridge.session.live import LiveSession
from punchbridge.session.places import Claim, SessionPlaces
from punchbridge.sessions import Attach, Session
from punchbridge.sessions.budget import Budget
from punchbridge.sessions.frames import Kind, encode
from punchbridge.tasks.prefixes import source

SERVICE = "/test/1"


@dataclass(eq=False)
class One:
    """What the places look at of a session."""

    machine: Session


class Table:
    """Places with sessions that are opened by hand."""

    def __init__(self, **limits: int) -> None:
        self.limits = SessionLimits(**limits)
        self.budget = Budget(self.limits.budget)
        self.places = SessionPlaces(self.limits, self.budget)
        self.now = 100.0

    def open(self, claim: Claim, *, said: int = 0, starved: bool = False) -> LiveSession:
        """One more session, which has carried so many bytes, and lost its carrier."""
        self.now += 0.01
        machine = Session(bytes(16), SERVICE, dialling=False, now=self.now, limits=self.limits)
        refused, _ = machine.attached_by(Attach(bytes(16), 1, 0, 1 << 20, True, 0, SERVICE), self.now)
        assert refused is None
        if said:
            machine.received(1, encode(Kind.DATA, 0, bytes(said)), self.now)
        if starved:
            machine.lost(1, "CUT", self.now)
        session = cast(LiveSession, One(machine))
        self.places.add(session, claim, self.now)
        return session

    def going(self, claim: Claim, later: float = 10.0) -> LiveSession | None:
        short = self.places.short(claim, 0)
        assert short is not None
        return self.places.first_to_go(claim, short, (), self.now + later)


def peer() -> PeerId:
    return Identity.generate().peer_id


def direct(host: str, *, listed: bool = False) -> Claim:
    return Claim(peer(), source(host), relayed=False, listed=listed)


def over(relay: str, *, listed: bool = False) -> Claim:
    return Claim(peer(), (("address", f"over {relay}"),), relayed=True, listed=listed)


def test_the_oldest_that_carried_nothing_goes_first_then_mute_openers_then_the_starved() -> None:
    table = Table(total=5)
    used = table.open(direct("1.1.1.1"), said=1)
    starved = table.open(direct("1.1.1.2"), said=1, starved=True)
    heard_only = table.open(direct("1.1.1.3"))
    heard_only.machine.write(b"banner", table.now)
    heard_only.machine.output(1, 1 << 16, table.now)
    heard_only.machine.received(1, encode(Kind.ACK, 6, (1 << 20).to_bytes(8, "big")), table.now)
    mute = [table.open(direct("1.1.1.4")), table.open(direct("1.1.1.4"))]
    order = []
    for _ in range(4):
        going = table.going(direct("9.9.9.9"))
        assert going is not None
        order.append(going)
        table.places.discard(going)
        table.open(direct("9.9.9.8"), said=1)
    assert order == [*mute, heard_only, starved]
    assert used not in order


def test_whoever_holds_most_makes_room_until_all_hold_as_many() -> None:
    table = Table(total=6)
    many = [table.open(direct("1.1.1.1"), said=1) for _ in range(6)]
    taken = 0
    newcomer = direct("2.2.2.2")
    while (going := table.going(newcomer)) is not None:
        assert going is many[taken]  # the one that was used longest ago
        table.places.discard(going)
        table.open(newcomer, said=1)
        taken += 1
    assert taken == 3
    assert table.going(direct("1.1.1.1")) is None


def test_relayed_sessions_have_a_share_in_all_and_for_each_relay() -> None:
    table = Table(relayed=4, per_relay=3)
    for _ in range(3):
        table.open(over("A"), said=1)
    assert table.places.short(over("A"), 0) == "sessions_per_relay"
    assert table.places.short(over("B"), 0) is None
    table.open(over("B"), said=1)
    assert table.places.short(over("B"), 0) == "sessions_relayed"
    assert table.places.short(direct("1.1.1.1"), 0) is None


def test_a_mute_session_elsewhere_makes_no_room_in_a_full_relay() -> None:
    table = Table(per_relay=3)
    table.open(direct("1.1.1.1"))
    table.open(over("B"))
    claim = over("A")
    full = [table.open(claim, said=1) for _ in range(3)]
    assert table.going(claim) is None
    assert table.going(over("A")) is full[0]


def test_strangers_make_room_for_listed_peers_and_never_the_other_way() -> None:
    table = Table(total=2)
    listed = table.open(direct("1.1.1.1", listed=True))
    stranger = table.open(direct("2.2.2.2"), said=1)
    assert table.going(direct("3.3.3.3")) is None
    assert table.going(direct("3.3.3.3", listed=True)) is stranger
    table.places.discard(stranger)
    table.open(direct("4.4.4.4", listed=True), said=1)
    assert table.going(direct("3.3.3.3")) is None
    assert table.going(direct("3.3.3.3", listed=True)) is listed


def test_a_peer_at_its_own_bound_makes_no_room() -> None:
    table = Table(per_peer=1)
    claim = direct("1.1.1.1")
    table.open(claim)
    assert table.places.short(claim, 0) == "sessions_per_peer"
    assert table.going(claim) is None


def test_an_ipv6_customer_is_bounded_by_its_net_and_shares_one_part_of_the_budget() -> None:
    table = Table(per_address=2, per_ipv6_56=3)
    for net in ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1"):
        table.open(direct(net), said=1)
    assert table.places.short(direct("2001:db8:0:3::1"), 0) == "sessions_per_origin"
    assert table.places.short(direct("2001:db8:0:100::1"), 0) is None
    assert direct("2001:db8:0:1::1").budget == direct("2001:db8:0:2::1").budget


def test_a_part_of_the_budget_is_one_as_long_as_somebody_uses_it() -> None:
    table = Table(budget=1000, budget_per_origin=300)
    claim, other = direct("1.1.1.1"), direct("1.1.1.1")
    share = table.places.borrow(claim)
    assert table.places.borrow(other) is share
    assert (share.take(1000), table.budget.left) == (300, 700)
    assert table.places.borrow(direct("2.2.2.2")).take(1000) == 300
    share.give_back(300)
    table.places.give_back(claim)
    assert table.places.borrow(direct("1.1.1.1")) is share


def test_a_crowd_does_not_drive_out_whom_it_outnumbers_and_whose_first_byte_is_on_its_way() -> None:
    table = Table(per_relay=8)
    honest = table.open(over("A"))
    crowd = over("A")
    mute = [table.open(crowd) for _ in range(7)]
    for number in range(20):
        going = table.going(over("A") if number % 2 else crowd, later=0.0)
        if going is None:
            continue
        assert going is not honest
        assert going in mute
        table.places.discard(going)
        mute.append(table.open(over("A") if number % 2 else crowd))
    # After the grace it is the oldest of those who hold as many as it does.
    table = Table(per_relay=2)
    honest = table.open(over("A"))
    table.open(over("A"))
    assert table.going(over("A"), later=0.0) is None
    assert table.going(over("A"), later=10.0) is honest


def test_a_session_that_has_just_lost_its_carrier_goes_only_for_those_with_fewer() -> None:
    table = Table(total=2)
    lost = table.open(direct("1.1.1.1"), said=1, starved=True)
    table.open(direct("2.2.2.2"), said=1)
    assert table.going(direct("3.3.3.3"), later=0.0) is None
    assert table.going(direct("3.3.3.3"), later=10.0) is lost
