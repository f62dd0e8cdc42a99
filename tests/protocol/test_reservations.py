"""The relay's tables: reservations, circuits, access rules and rates, by the rules of docs/wire-rules.md."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from punchbridge.access.lists import Rules
from punchbridge.access.policy import OPEN, Access
from punchbridge.config import ANYONE
from punchbridge.errors import ConfigError
from punchbridge.identity import Identity, PeerId
from punchbridge.wire.circuit import CircuitLimit, Status
from punchbridge_relay.access import RelayAccess, address_key
from punchbridge_relay.circuits import CircuitTable, Direction
from punchbridge_relay.limits import HopLimits, RelayLimits
from punchbridge_relay.refusal import HopRefusal
from punchbridge_relay.reservations import ReservationTable

PEERS = [Identity.generate().peer_id for _ in range(12)]
A, B, C = PEERS[:3]
IP = ip_address("11.0.0.1")
WALL = 1_800_000_000.0


def reservations(access: Access = OPEN, **limits: float) -> ReservationTable:
    return ReservationTable(RelayLimits(**limits), RelayAccess(lambda: access))  # type: ignore[arg-type]


def circuits(access: Access = OPEN, **limits: Any) -> CircuitTable:
    return CircuitTable(RelayLimits(**limits), RelayAccess(lambda: access))


def refused(status: Status, reason: str):  # type: ignore[no-untyped-def]
    return pytest.raises(HopRefusal, match=f"^{status.name}: {reason}$")


# --- limits -----------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_specification_and_of_go() -> None:
    limits = RelayLimits()
    assert (limits.reservations, limits.reservation_ttl, limits.circuits_per_peer) == (128, 3600, 16)
    assert limits.circuit_limit == CircuitLimit(120, 131072)


def test_r3_zero_is_unlimited() -> None:
    assert RelayLimits(circuit_seconds=0, circuit_bytes=0).circuit_limit is None
    assert RelayLimits(circuit_seconds=0).circuit_limit == CircuitLimit(None, 131072)


@pytest.mark.parametrize(
    "senseless",
    [
        {"reservations": -1},
        {"reservation_ttl": 0},
        {"reservation_ttl": 2**32},
        {"circuit_seconds": 2**32},
        {"circuit_bytes": 2**64},
        {"peer_interval": float("nan")},
    ],
)
def test_senseless_limits_are_refused(senseless: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RelayLimits(**senseless)  # type: ignore[arg-type]


# --- reservations -----------------------------------------------------------------------------------------


def test_r1_a_reservation_lasts_for_its_ttl() -> None:
    table = reservations(reservation_ttl=60)
    granted = table.reserve(A, IP, 1000.0, WALL)
    assert granted.expire == int(WALL) + 60
    assert table.holds(A, 1059.9)
    assert not table.holds(A, 1060.0)
    assert not table.holds(B, 1000.0)


def test_r5_a_refresh_moves_the_expiry_and_takes_no_second_slot() -> None:
    table = reservations(reservations=1, reservations_per_address=1, reservation_ttl=60)
    table.reserve(A, IP, 0.0, WALL)
    table.reserve(A, IP, 40.0, WALL + 40)
    assert len(table) == 1
    assert table.holds(A, 99.0)


def test_r5_the_end_frees_the_slot() -> None:
    table = reservations(reservations=1)
    table.reserve(A, IP, 0.0, WALL)
    assert table.end(A)
    assert not table.end(A)
    assert not table.holds(A, 1.0)
    table.reserve(B, IP, 1.0, WALL)


def test_expired_reservations_give_their_slots_back() -> None:
    table = reservations(reservations=2, reservation_ttl=60)
    table.reserve(A, IP, 0.0, WALL)
    table.reserve(B, IP, 30.0, WALL)
    with refused(Status.RESERVATION_REFUSED, "reserve_full"):
        table.reserve(C, IP, 59.0, WALL)
    table.reserve(C, IP, 60.0, WALL)
    assert table.expire(90.0) == (B,)
    assert len(table) == 1


def test_limit_per_address_counts_an_ipv6_network_as_one() -> None:
    table = reservations(reservations_per_address=1)
    table.reserve(A, ip_address("2001:db8:0:1::1"), 0.0, WALL)
    with refused(Status.RESERVATION_REFUSED, "reserve_full_address"):
        table.reserve(B, ip_address("2001:db8:0:1:ffff::9"), 0.0, WALL)
    table.reserve(B, ip_address("2001:db8:0:2::1"), 0.0, WALL)


def test_a_peer_that_moves_frees_its_old_address() -> None:
    table = reservations(reservations_per_address=1)
    table.reserve(A, IP, 0.0, WALL)
    table.reserve(A, ip_address("11.0.0.2"), 1.0, WALL)
    table.reserve(B, IP, 2.0, WALL)
    with refused(Status.RESERVATION_REFUSED, "reserve_full_address"):
        table.reserve(C, ip_address("11.0.0.2"), 3.0, WALL)


def test_a_refused_renewal_leaves_the_reservation_as_it_was() -> None:
    table = reservations(peer_burst=1, peer_interval=5, reservation_ttl=60)
    table.reserve(A, IP, 0.0, WALL)
    with refused(Status.RESERVATION_REFUSED, "reserve_rate_peer"):
        table.reserve(A, IP, 1.0, WALL)
    assert table.holds(A, 59.0)


def test_rates_per_peer_and_per_address() -> None:
    table = reservations(peer_burst=2, peer_interval=10, address_burst=3, address_interval=10)
    table.reserve(A, IP, 0.0, WALL)
    table.reserve(A, IP, 0.0, WALL)
    with refused(Status.RESERVATION_REFUSED, "reserve_rate_peer"):
        table.reserve(A, IP, 9.0, WALL)
    table.reserve(B, IP, 9.0, WALL)
    with refused(Status.RESERVATION_REFUSED, "reserve_rate_address"):
        table.reserve(C, IP, 9.0, WALL)
    table.reserve(A, ip_address("11.0.0.9"), 10.0, WALL)


def test_r1_access_rules_answer_permission_denied() -> None:
    table = reservations(Access.of(ANYONE, ["11.0.0.0/24"]))
    with refused(Status.PERMISSION_DENIED, "reserve_denied"):
        table.reserve(A, IP, 0.0, WALL)


def test_clear_ends_all() -> None:
    table = reservations()
    table.reserve(A, IP, 0.0, WALL)
    table.reserve(B, IP, 0.0, WALL)
    assert table.clear() == 2
    assert not table.holds(A, 0.0)
    assert table.clear() == 0


class Reservations(RuleBasedStateMachine):
    """Against a plain model: no slot is lost or counted twice, whatever the order of events."""

    @initialize()
    def start(self) -> None:
        self.table = reservations(reservations=5, reservations_per_address=3, reservation_ttl=60, peer_burst=0)
        self.model: dict[object, tuple[str, float]] = {}
        self.now = 0.0

    @rule(peer=st.sampled_from(PEERS), host=st.integers(1, 3))
    def reserve(self, peer, host: int) -> None:  # type: ignore[no-untyped-def]
        ip = ip_address(f"11.0.0.{host}")
        self._expire()
        others = {key: value for key, value in self.model.items() if key != peer}
        fits = len(others) < 5 and sum(address == str(ip) for address, _ in others.values()) < 3
        try:
            self.table.reserve(peer, ip, self.now, WALL)
        except HopRefusal:
            assert not fits
        else:
            assert fits
            self.model[peer] = (str(ip), self.now + 60)

    @rule(peer=st.sampled_from(PEERS))
    def end(self, peer) -> None:  # type: ignore[no-untyped-def]
        self._expire()
        self.table.expire(self.now)
        assert self.table.end(peer) == (self.model.pop(peer, None) is not None)

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _expire(self) -> None:
        self.model = {peer: value for peer, value in self.model.items() if value[1] > self.now}

    @invariant()
    def agrees(self) -> None:
        self._expire()
        assert {peer for peer in PEERS if self.table.holds(peer, self.now)} == set(self.model)


TestReservations = Reservations.TestCase


# --- circuits ---------------------------------------------------------------------------------------------


def test_r4_the_data_limit_is_exact_and_per_direction() -> None:
    table = circuits(circuit_bytes=100)
    circuit = table.open(A, B, 0.0)
    assert circuit.take(Direction.TO_TARGET, 60) == 60
    assert circuit.take(Direction.TO_TARGET, 40) == 40
    assert circuit.take(Direction.TO_TARGET, 1) == 0
    assert circuit.take(Direction.TO_SOURCE, 101) == 100
    assert circuit.bytes == 200


@given(st.lists(st.integers(1, 500), max_size=30), st.integers(0, 1000))
def test_r4_any_split_passes_the_same_bytes(sizes: list[int], limit: int) -> None:
    circuit = circuits(circuit_bytes=limit).open(A, B, 0.0)
    passed = sum(circuit.take(Direction.TO_SOURCE, size) for size in sizes)
    assert passed == (min(sum(sizes), limit) if limit else sum(sizes))


def test_a_circuit_to_oneself_is_refused() -> None:
    with refused(Status.PERMISSION_DENIED, "connect_self"):
        circuits().admit(A, A, IP, 0.0)


def test_r8_too_many_circuits() -> None:
    table = circuits(circuits=3, circuits_per_peer=2)
    first = table.open(A, B, 0.0)
    table.open(A, B, 0.0)
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_source"):
        table.open(A, C, 0.0)
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_target"):
        table.open(C, B, 0.0)
    table.open(B, A, 0.0)  # source and target are counted apart
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full"):
        table.open(C, PEERS[4], 0.0)
    table.close(first)
    table.open(C, B, 0.0)


def test_one_address_with_many_ids_does_not_shut_a_target_off() -> None:
    table = circuits(circuits=100, circuits_per_peer=8)
    crowd = [table.open(peer, B, 0.0, IP) for peer in PEERS[3:9]]
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_address"):
        table.open(A, B, 0.0, IP)
    table.open(A, C, 0.0, IP)
    table.open(A, B, 0.0, ip_address("192.0.2.77"))
    table.close(crowd[0])
    table.open(A, B, 0.0, IP)


def test_one_address_with_many_ids_does_not_take_all_circuits() -> None:
    table = circuits(circuits=4, circuits_per_peer=2)
    for target in PEERS[1:4]:
        table.open(A if target is B else B, target, 0.0, IP)
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_address"):
        table.open(C, PEERS[5], 0.0, IP)
    table.open(C, PEERS[5], 0.0, ip_address("192.0.2.77"))


def test_two_circuits_of_one_pair_are_two_records() -> None:
    table = circuits()
    first, second = table.open(A, B, 0.0), table.open(A, B, 0.0)
    table.join(first, 0.0)
    table.join(second, 0.0)
    first.take(Direction.TO_TARGET, 10)
    table.close(first)
    table.close(first)
    second.take(Direction.TO_TARGET, 5)
    assert len(table) == 1
    assert table.bytes == 15
    assert [entry["bytes_to_target"] for entry in table.per_circuit(1.0)] == [5]


def test_only_joined_circuits_are_shown_but_all_hold_a_slot() -> None:
    table = circuits(circuits=1)
    waiting = table.open(A, B, 0.0)
    assert (len(table), table.per_circuit(0.0)) == (0, ())
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full"):
        table.open(B, C, 0.0)
    table.join(waiting, 5.0)
    assert table.per_circuit(7.5)[0]["seconds"] == 2.5


def test_the_list_of_circuits_is_bounded_while_the_count_is_not() -> None:
    table = circuits(circuits_per_peer=0, hop=HopLimits(stats_circuits=7))
    for _ in range(12):
        table.join(table.open(A, B, 0.0), 0.0)
    assert len(table.per_circuit(0.0)) == 7
    assert len(table) == 12


def test_rates_and_access_of_connect() -> None:
    table = circuits(Access.of(ANYONE, [str(C)]), peer_burst=1, peer_interval=5, address_burst=2, address_interval=1)
    table.admit(A, PEERS[9], IP, 0.0)
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_rate_peer"):
        table.admit(A, PEERS[9], IP, 1.0)
    with refused(Status.PERMISSION_DENIED, "connect_denied"):
        table.admit(C, PEERS[9], IP, 0.0)
    table.admit(B, PEERS[9], IP, 0.0)
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_rate_address"):
        table.admit(PEERS[5], PEERS[9], IP, 0.0)


def test_one_customer_of_a_provider_gets_no_more_reservations_than_its_nets_have() -> None:
    """256 nets of a /56 are one customer, and 256 of those are one site."""
    table = reservations(reservations_per_address=2, reservations_per_56=3, reservations_per_48=5)
    granted = 0

    def ask(host: str) -> None:
        nonlocal granted
        table.reserve(PeerId(b"\x12\x20" + granted.to_bytes(32, "big")), ip_address(host), 0.0, 0.0)
        granted += 1

    for host in ("2600:1:1:1::1", "2600:1:1:1::2", "2600:1:1:2::1"):
        ask(host)
    with refused(Status.RESERVATION_REFUSED, "reserve_full_address"):
        ask("2600:1:1:1::3")
    with refused(Status.RESERVATION_REFUSED, "reserve_full_56"):
        ask("2600:1:1:3::1")
    for host in ("2600:1:1:100::1", "2600:1:1:200::1"):
        ask(host)
    with refused(Status.RESERVATION_REFUSED, "reserve_full_48"):
        ask("2600:1:1:300::1")
    for host in ("2600:1:2::1", "11.0.0.1", "11.0.0.2"):
        ask(host)
    table.end(PeerId(b"\x12\x20" + bytes(32)))
    ask("2600:1:1:ff::1")
    assert len(table) == granted - 1


def test_a_renewal_from_another_net_of_the_same_customer_is_no_further_reservation() -> None:
    table = reservations(reservations_per_56=1, reservations_per_48=1, reservations_per_address=1)
    for net in range(3):
        table.reserve(A, ip_address(f"2600:1:1:{net}::1"), float(net), 0.0)
    assert len(table) == 1
    with refused(Status.RESERVATION_REFUSED, "reserve_full_56"):
        table.reserve(B, ip_address("2600:1:1:9::1"), 3.0, 0.0)


def test_nets_of_one_site_do_not_shut_a_target_off() -> None:
    table = circuits(circuits_per_peer=4)
    for net in range(3):
        table.open(PEERS[net], PEERS[9], 0.0, ip_address(f"2600:1:1:{net}::1"))
    with refused(Status.RESOURCE_LIMIT_EXCEEDED, "connect_full_address"):
        table.open(PEERS[3], PEERS[9], 0.0, ip_address("2600:1:1:3::1"))
    table.open(PEERS[3], PEERS[9], 0.0, ip_address("2600:1:2::1"))


# --- access and rates -------------------------------------------------------------------------------------


def test_deny_wins_and_an_allow_list_excludes_the_rest() -> None:
    rules = RelayAccess(lambda: Access.of([str(A), "11.0.0.0/8"], ["11.0.0.66", str(B)]))
    assert rules.may_reserve(A, ip_address("8.8.8.8"))
    assert rules.may_reserve(C, ip_address("::ffff:11.1.2.3"))
    assert not rules.may_reserve(C, ip_address("12.0.0.1"))
    assert not rules.may_reserve(C, None)
    assert rules.may_reserve(C, ip_address("64:ff9b::11.1.2.3"))
    assert not rules.may_reserve(A, ip_address("64:ff9b::11.0.0.66"))
    for may in (rules.may_reserve, rules.may_connect):
        assert not may(A, ip_address("11.0.0.66"))
        assert not may(B, ip_address("11.0.0.1"))
    assert rules.may_connect(C, None)
    closed = RelayAccess(rules.lists, Access.of([str(C)]))
    assert closed.may_connect(C, None)
    assert closed.may_connect(A, None)
    assert not closed.may_connect(PEERS[5], None)


def test_what_counts_as_one_address() -> None:
    assert address_key(ip_address("::ffff:11.0.0.1")) == address_key(IP)
    assert address_key(ip_address("2001:db8::1")) == address_key(ip_address("2001:db8::2"))
    assert address_key(None) == "unknown"


@given(st.lists(st.text(max_size=50) | st.text("0123456789abcdef.:/", max_size=50), max_size=3))
def test_any_rule_is_read_or_a_config_error(texts: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        assert bool(Rules.parse(texts)) == bool(texts)
