"""Routes against a model: by type, by id, capacities, overflow; and the rules that end a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from punchbridge_node import wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.connection import ending_for
from punchbridge_node.errors import DisconnectReason
from punchbridge_node.router import DROPPED_WHEN_FULL, Outcome, Route, RouteTable

PING = wire.message(wire.PING, pb.PingMessage(nonce=7))
INV = wire.inv_transactions([bytes(32)])
MOST = 1 << 20
TYPES = sorted(wire.PAYLOAD_TYPES - {wire.REJECT})


def empty_of(kind: wire.PayloadType, response_id: int = 0) -> pb.KaspadMessage:
    msg = pb.KaspadMessage(responseId=response_id)
    getattr(msg, kind).SetInParent()
    return msg


def test_what_waits_is_bounded_in_bytes_over_all_routes() -> None:
    table = RouteTable(MOST)
    invs, txs = table.subscribe([wire.INV_TRANSACTIONS], 4096), table.subscribe([wire.TRANSACTION], 4096)
    most, tx = MOST, empty_of(wire.TRANSACTION)
    assert table.route(INV, most // 2) is Outcome.DELIVERED
    assert table.route(tx, most // 2) is Outcome.DELIVERED
    assert table.route(INV, most // 2) is Outcome.DROPPED
    assert table.route(tx, 1) is Outcome.FULL
    assert invs.take() == INV
    assert table.route(tx, most // 2) is Outcome.DELIVERED
    assert [txs.take(), txs.take()] == [tx, tx]
    assert table.route(tx, 20 * most) is Outcome.DELIVERED  # one message may be as large as the wire allows
    assert table.route(PING, 0) is Outcome.NO_ROUTE


def test_a_message_goes_by_type_and_wakes_the_reader() -> None:
    table = RouteTable(MOST)
    route = table.subscribe([wire.PING, wire.PONG])
    woken: list[bool] = []
    route.on_message = lambda: woken.append(True)
    assert table.route(PING) is Outcome.DELIVERED
    assert list(route.queue) == [PING]
    assert woken == [True]


def test_a_response_id_routes_by_id_whatever_the_type() -> None:
    table = RouteTable(MOST)
    by_type, by_id = table.subscribe([wire.BLOCK]), table.subscribe([])
    assert table.route(empty_of(wire.BLOCK, by_id.id)) is Outcome.DELIVERED
    assert (len(by_type.queue), len(by_id.queue)) == (0, 1)
    assert table.route(empty_of(wire.BLOCK, by_id.id + by_type.id + 1000)) is Outcome.NO_ROUTE


def test_a_block_without_its_id_has_no_route() -> None:
    table = RouteTable(MOST)
    table.subscribe([])
    assert table.route(empty_of(wire.BLOCK)) is Outcome.NO_ROUTE


@pytest.mark.parametrize("kind", TYPES)
def test_a_full_route_drops_inventories_and_nothing_else(kind: wire.PayloadType) -> None:
    table = RouteTable(MOST)
    route = table.subscribe([kind], capacity=2)
    outcomes = [table.route(empty_of(kind)) for _ in range(3)]
    last = Outcome.DROPPED if kind in (wire.INV_TRANSACTIONS, wire.INV_RELAY_BLOCK) else Outcome.FULL
    assert outcomes == [Outcome.DELIVERED, Outcome.DELIVERED, last]
    assert len(route.queue) == 2


def test_a_reject_is_never_routed_and_an_unknown_payload_is_empty() -> None:
    table = RouteTable(MOST)
    assert table.route(wire.message(wire.REJECT, pb.RejectMessage(reason="x"))) is Outcome.REJECTED
    assert table.route(pb.KaspadMessage()) is Outcome.EMPTY
    # Field 99 of the oneof, length-delimited: a payload of a later protocol.
    assert table.route(wire.parse(b"\x9a\x06\x00")) is Outcome.EMPTY


def test_our_own_mistakes_raise() -> None:
    table = RouteTable(MOST)
    table.subscribe([wire.PING])
    for types in ([wire.PING], [wire.REJECT], [wire.PayloadType("nonsense")], [wire.PONG, wire.PONG]):
        with pytest.raises(ValueError, match=r"route|twice"):
            table.subscribe(types)
    table.subscribe([wire.PONG])  # the failed attempts left nothing behind
    with pytest.raises(ValueError, match="capacity"):
        table.subscribe([], capacity=0)


def test_after_unsubscribe_there_is_no_route_and_the_queue_stays_readable() -> None:
    table = RouteTable(MOST)
    route = table.subscribe([wire.PING])
    table.route(PING)
    table.unsubscribe(route)
    assert table.route(PING) is Outcome.NO_ROUTE
    assert table.route(empty_of(wire.PING, route.id)) is Outcome.NO_ROUTE
    assert list(route.queue) == [PING]
    table.subscribe([wire.PING])


def test_only_rules_that_end_a_connection_have_an_ending() -> None:
    reasons = {outcome: ending_for(outcome, PING).reason for outcome in list(Outcome)[2:]}
    assert reasons == {
        Outcome.FULL: DisconnectReason.ROUTE_FULL,
        Outcome.NO_ROUTE: DisconnectReason.NO_ROUTE,
        Outcome.EMPTY: DisconnectReason.PROTOCOL_ERROR,
        Outcome.REJECTED: DisconnectReason.PEER_REJECTED,
    }
    # None of these is told to the peer in a Reject: only an error inside a flow is.
    assert all(ending_for(outcome, PING).reject is None for outcome in reasons)
    for outcome in (Outcome.DELIVERED, Outcome.DROPPED):
        with pytest.raises(ValueError, match="does not end"):
            ending_for(outcome, PING)


class Routing(RuleBasedStateMachine):
    """A table against a plain model of it."""

    routes = Bundle("routes")

    @initialize()
    def begin(self) -> None:
        self.table = RouteTable(MOST)
        self.model: dict[int, tuple[Route, set[str], list[pb.KaspadMessage]]] = {}

    @rule(target=routes, types=st.sets(st.sampled_from(TYPES), max_size=3), capacity=st.integers(1, 3))
    def subscribe(self, types: set[wire.PayloadType], capacity: int) -> int:
        free = types - {name for _, names, _ in self.model.values() for name in names}
        route = self.table.subscribe(sorted(free), capacity)
        assert 0 < route.id < 2**32
        assert route.id not in self.model
        self.model[route.id] = (route, set(free), [])
        return route.id

    @rule(route_id=routes)
    def unsubscribe(self, route_id: int) -> None:
        if route_id in self.model:
            self.table.unsubscribe(self.model.pop(route_id)[0])

    @rule(route_id=routes)
    def read(self, route_id: int) -> None:
        if route_id in self.model and self.model[route_id][2]:
            assert self.model[route_id][0].queue.popleft() == self.model[route_id][2].pop(0)

    @rule(kind=st.sampled_from(TYPES), response_id=st.just(0) | routes)
    def arrive(self, kind: wire.PayloadType, response_id: int) -> None:
        msg = empty_of(kind, response_id)
        if response_id:
            target = self.model.get(response_id)
        else:
            target = next((entry for entry in self.model.values() if kind in entry[1]), None)
        outcome = self.table.route(msg)
        if target is None:
            assert outcome is Outcome.NO_ROUTE
        elif len(target[2]) == target[0].capacity:
            assert outcome is (Outcome.DROPPED if kind in DROPPED_WHEN_FULL else Outcome.FULL)
        else:
            assert outcome is Outcome.DELIVERED
            target[2].append(msg)

    @invariant()
    def queues_agree(self) -> None:
        for route, _, expected in getattr(self, "model", {}).values():
            assert list(route.queue) == expected
            assert len(route.queue) <= route.capacity


TestRouting = Routing.TestCase


@given(st.binary(max_size=200))
def test_parse_gives_a_message_or_the_one_typed_error(data: bytes) -> None:
    table = RouteTable(MOST)
    table.subscribe(TYPES)
    try:
        msg = wire.parse(data)
    except wire.MalformedMessage:
        return
    assert table.route(msg) in set(Outcome)


@given(st.sampled_from(TYPES), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_message_survives_the_wire_with_both_ids(kind: wire.PayloadType, request_id: int, response_id: int) -> None:
    body = getattr(pb.KaspadMessage(), kind)
    msg = wire.message(kind, body, request_id=request_id, response_id=response_id)
    back = wire.parse(msg.SerializeToString())
    assert wire.payload_type(back) == kind
    assert (back.requestId, back.responseId) == (request_id, response_id)
