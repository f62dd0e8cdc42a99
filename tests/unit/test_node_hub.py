"""Duplicates and successors, the peer table's bounds, the inventory's bookkeeping. No socket."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.identity import Identity, peer_text
from punchbridge_node import fixed, gossip, ids, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.addressbook import AddressBook
from punchbridge_node.config import NodeConfig, NodeLimits
from punchbridge_node.connection import PeerConnection
from punchbridge_node.errors import ConnectionOver, DisconnectReason, Ending, HandshakeFailure
from punchbridge_node.flows.base import FlowContext
from punchbridge_node.flows.transactions import AnswerTransactions
from punchbridge_node.handshake import HandshakeRefusal
from punchbridge_node.hub import Hub, Verdict, judge
from punchbridge_node.inventory import BodyStore, Inventory
from punchbridge_node.peer import BoundedSet, PeerRecord
from punchbridge_node.transport import PeerInfo
from tests.support.fresh import fresh


class Nowhere:
    """A stream that is never run."""

    def __init__(self, outbound: bool = True) -> None:
        self.outbound = outbound

    async def open(self) -> None:
        raise AssertionError

    async def read(self) -> bytes | None:
        raise AssertionError

    async def write(self, data: bytes) -> None:
        raise AssertionError

    async def finish(self) -> None:
        raise AssertionError

    def cancel(self) -> None:
        raise AssertionError


LIMITS = NodeLimits(dormant_peers=20, reannounce_age=30.0, answers_per_turn=16)


def connection(outbound: bool = True, capacity: int = fixed.OUTGOING_CAPACITY, **limits: Any) -> PeerConnection:
    return PeerConnection(Nowhere(outbound), NodeLimits(**limits), capacity=capacity)


def sent(it: PeerConnection) -> list[pb.KaspadMessage]:
    return [wire.parse(data) for _, data in it._queue]


def announced(it: PeerConnection) -> list[bytes]:
    found = []
    for msg in sent(it):
        if wire.payload_type(msg) == wire.INV_TRANSACTIONS:
            found += wire.transaction_ids(msg)
        elif wire.payload_type(msg) == wire.INV_RELAY_BLOCK:
            found.append(msg.invRelayBlock.hash.bytes)
    return found


def on_loop(work: Callable[[], None]) -> None:
    """Retiring uses the loop's clock, so these run on one."""

    async def main() -> None:
        work()

    asyncio.run(main())


BOOLS = [False, True]


def judged(existing: PeerConnection | None, same: bool, proven: bool, outbound: bool, ours: bool) -> Verdict:
    return judge(existing, same_process=same, proven=proven, outbound=outbound, ours_wins=ours)


@pytest.mark.parametrize(("same", "proven", "outbound", "ours"), list(itertools.product(BOOLS, repeat=4)))
def test_the_first_stream_is_always_free(same: bool, proven: bool, outbound: bool, ours: bool) -> None:
    assert judged(None, same, proven, outbound, ours) is Verdict.FREE


@pytest.mark.parametrize(("same", "mine", "outbound", "ours"), list(itertools.product(BOOLS, repeat=4)))
def test_an_unproven_second_stream_is_always_a_duplicate(same: bool, mine: bool, outbound: bool, ours: bool) -> None:
    assert judged(connection(mine), same, False, outbound, ours) is Verdict.DUPLICATE


@pytest.mark.parametrize(("a_first", "b_first", "a_is_smaller"), list(itertools.product(BOOLS, repeat=3)))
def test_both_sides_of_a_crossed_dial_keep_the_same_stream(a_first: bool, b_first: bool, a_is_smaller: bool) -> None:
    """Stream X is dialled by A, stream Y by B; either may be the first at either side."""

    def kept(first_is_outbound: bool, ours_wins: bool) -> bool:
        """Whether the side keeps the stream it dialled itself."""
        verdict = judged(connection(first_is_outbound), True, True, not first_is_outbound, ours_wins)
        return first_is_outbound if verdict is Verdict.DUPLICATE else not first_is_outbound

    a_keeps_x = kept(a_first, a_is_smaller)
    b_keeps_y = kept(b_first, not a_is_smaller)
    assert a_keeps_x != b_keeps_y
    assert a_keeps_x == a_is_smaller


def test_a_reopened_stream_a_restarted_peer_and_a_dead_stream_are_succeeded() -> None:
    for outbound in BOOLS:
        assert judged(connection(outbound), True, True, outbound, False) is Verdict.SUCCESSOR
        assert judged(connection(not outbound), False, True, outbound, False) is Verdict.SUCCESSOR
    over = connection(True)
    over.end(Ending(DisconnectReason.TRANSPORT))
    assert judged(over, True, True, False, True) is Verdict.SUCCESSOR


def test_a_successor_takes_over_record_and_counters_and_retires_the_old_stream() -> None:
    def work() -> None:
        hub = Hub(bytes(16), LIMITS)
        old, young = connection(), connection()
        young._confirm()
        info = PeerInfo("1.1.1.1", peer_id="P", path_of=lambda: "relay")
        record = hub.admit(info, b"x" * 16, old)
        assert isinstance(record, PeerRecord)
        old.sent["ping"] += 3
        young.sent["version"] += 1
        other_path = PeerInfo("2.2.2.2", peer_id="P", path_of=lambda: "direct")
        assert hub.admit(other_path, b"x" * 16, young) is record
        assert (record.sent["ping"], record.sent["version"], record.connections) == (3, 1, 2)
        assert young.sent is record.sent
        assert record.info.path == "direct"
        assert old.ending is not None  # nothing was under way, and the dialler ends at once
        assert old.ending.reason is DisconnectReason.REPLACED
        hub.leave(record, old)
        assert fresh(record.connection) is young
        hub.leave(record, young)
        assert record.connection is None
        assert hub.get("P") is record

    on_loop(work)


def test_a_retired_stream_waits_for_its_successor_to_be_admitted_and_for_what_it_is_owed() -> None:
    def work() -> None:
        for answered_first in BOOLS:
            it, successor = connection(), connection()
            it.expect(2)
            it.retire(successor)
            steps: list[Callable[[], None]] = [partial(it.expect, -2), successor._confirm]
            first, last = steps if answered_first else reversed(steps)
            first()
            assert fresh(it.ending) is None
            last()
            assert it.ending is not None
            assert it.ending.reason is DisconnectReason.REPLACED
        accepted, successor = connection(outbound=False), connection(outbound=False)
        successor._confirm()
        accepted.retire(successor)
        assert accepted.ending is None  # the dialler ends first

    on_loop(work)


def test_the_table_is_bounded() -> None:
    hub = Hub(bytes(16), NodeLimits(peers=2))
    for index in range(2):
        assert isinstance(hub.admit(PeerInfo(f"1.1.1.{index}"), bytes([index]) * 16, connection()), PeerRecord)
    refused = hub.admit(PeerInfo("9.9.9.9"), b"z" * 16, connection())
    assert isinstance(refused, HandshakeRefusal)
    assert refused.failure is HandshakeFailure.TOO_MANY_PEERS
    duplicate = hub.admit(PeerInfo("1.1.1.1"), bytes([1]) * 16, connection())
    assert isinstance(duplicate, HandshakeRefusal)
    assert duplicate.reject == "DUPLICATE_CONNECTION"
    assert hub.verdict(PeerInfo("2.2.2.2"), bytes([1]) * 16, True) is Verdict.FREE  # same id, another IP

    hub = Hub(bytes(16), NodeLimits(peers=1, dormant_peers=20))
    for index in range(LIMITS.dormant_peers + 10):
        it = connection()
        record = hub.admit(PeerInfo("1.1.1.1"), index.to_bytes(16, "big"), it)
        assert isinstance(record, PeerRecord)
        hub.leave(record, it)
    assert len(list(hub)) == LIMITS.dormant_peers


# --- outgoing queue ---


@pytest.mark.parametrize("bridged", [False, True])
def test_one_address_with_many_ids_does_not_take_all_places(bridged: bool) -> None:
    def info(host: str, number: int) -> PeerInfo:
        if bridged:
            peer = peer_text(Identity.generate().peer_id)
            multiaddr = f"/ip4/{host}/tcp/{1000 + number}/p2p/{peer}"
            return PeerInfo("fd00::1", peer_id=peer, path_of=lambda: "direct", multiaddr=multiaddr)
        return PeerInfo(host, number)

    hub = Hub(bytes(16), NodeLimits(peers=8))
    crowd = [hub.admit(info("192.0.2.1", number), bytes([number]) * 16, connection()) for number in range(1, 8)]
    assert [isinstance(one, PeerRecord) for one in crowd] == [True] * 6 + [False]
    assert isinstance(hub.admit(info("192.0.2.2", 20), bytes([20]) * 16, connection()), PeerRecord)
    relayed = PeerInfo("fd00::2", peer_id="P30", path_of=lambda: "relay", multiaddr="/ip4/192.0.2.1/tcp/1")
    assert isinstance(hub.admit(relayed, bytes([30]) * 16, connection()), PeerRecord)


def test_a_full_outgoing_queue_ends_the_connection() -> None:
    it = connection(capacity=2)
    ping = wire.message(wire.PING, pb.PingMessage(nonce=1))
    it.send_now(ping)
    it.send_now(ping)
    with pytest.raises(ConnectionOver):
        it.send_now(ping)
    assert it.ending is not None
    assert it.ending.reason is DisconnectReason.OUTGOING_FULL
    assert len(it._queue) == 2


def test_too_many_bytes_end_it_as_well_but_one_large_message_passes() -> None:
    it = connection(outgoing_high_water=1000)
    large = wire.message(wire.TRANSACTION, pb.TransactionMessage(payload=bytes(5000)))
    it.send_now(large)
    with pytest.raises(ConnectionOver):
        it.send_now(large)


def test_an_answer_waits_for_room_and_gives_up_in_time() -> None:

    async def main() -> None:
        it = connection(capacity=4, outgoing_stall=0.05)
        ping = wire.message(wire.PING, pb.PingMessage(nonce=1))
        await it.send(ping)
        await it.send(ping)
        with pytest.raises(ConnectionOver):
            await it.send(ping)
        assert it.ending is not None
        assert it.ending.detail == "the peer takes no messages"

    asyncio.run(main())


# --- inventory ---


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def stage(count: int, limits: NodeLimits = LIMITS) -> tuple[Inventory, Hub, list[PeerRecord], Clock]:
    hub, clock = Hub(bytes(16), LIMITS), Clock()
    records = []
    for index in range(count):
        record = hub.admit(PeerInfo(f"1.1.1.{index}", peer_id=f"P{index}"), bytes([index + 1]) * 16, connection())
        assert isinstance(record, PeerRecord)
        records.append(record)
    return Inventory(hub, limits, interval=0.01, clock=clock), hub, records, clock


def link(record: PeerRecord) -> PeerConnection:
    assert record.connection is not None
    return record.connection


def test_an_item_is_wanted_from_one_peer_only_and_never_again_once_had() -> None:
    inventory, _, (a, b), _ = stage(2)
    tx = gossip.transaction(10)
    item = ids.transaction_id(tx)
    assert item is not None
    assert inventory.want([item, item], link(a)) == [item]
    assert inventory.want([item], link(b)) == []
    inventory.answered(item)
    assert inventory.want([item], link(b)) == [item]
    inventory.answered(item)
    inventory.add_transaction(item, tx, b)
    assert inventory.want([item], link(a)) == []


def test_open_requests_are_bounded_and_a_peer_that_never_answers_keeps_nobody_from_asking() -> None:
    inventory, _, (silent, honest), _ = stage(2, NodeLimits(requested_ids=3))
    announced = [os.urandom(32) for _ in range(9)]
    assert inventory.want(announced, link(silent)) == announced
    assert len(inventory._requested) == 3
    item = os.urandom(32)
    assert inventory.want([item], link(honest)) == [item]
    assert inventory.want([item], link(silent)) == []
    assert len(inventory._requested) == 3


def test_a_block_goes_to_all_but_its_source_and_those_that_know_it() -> None:
    inventory, _, (source, knows, fresh), _ = stage(3)
    block = gossip.block(None, 10)
    item = ids.block_hash(block)
    knows.known_blocks.add(item)
    inventory.add_block(item, block, source)
    assert [announced(link(r)) for r in (source, knows, fresh)] == [[], [], [item]]
    inventory.add_block(item, block, knows)
    assert announced(link(fresh)) == [item]


def test_transactions_go_in_batches_to_all_but_the_source() -> None:
    inventory, _, (source, fresh), _ = stage(2)
    mine = inventory.publish_transaction(gossip.transaction(10))
    theirs = gossip.transaction(10)
    item = ids.transaction_id(theirs)
    assert item is not None
    inventory.add_transaction(item, theirs, source)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await inventory.run()

    asyncio.run(main())
    assert announced(link(source)) == [mine]
    assert announced(link(fresh)) == [mine, item]
    assert len(sent(link(fresh))) == 1


def test_on_a_reopened_stream_only_what_is_recent_is_announced_again() -> None:
    def work() -> None:
        inventory, hub, (record,), clock = stage(1)
        old = inventory.publish_block(gossip.block(None, 10))
        clock.now += LIMITS.reannounce_age + 1
        young = inventory.publish_block(gossip.block(old, 10))
        second = connection()
        hub.admit(record.info, record.node_id, second)
        inventory.greet(record, second)
        assert announced(second) == [young]

    on_loop(work)


def test_what_came_in_during_a_handshake_is_announced_after_it_but_not_to_who_wants_none() -> None:
    inventory, hub, _, clock = stage(0)
    stale = inventory.publish_transaction(gossip.transaction(10))
    clock.now += LIMITS.reannounce_age + 1
    items = [inventory.publish_transaction(gossip.transaction(10)) for _ in range(2)]
    blocks = [inventory.publish_block(gossip.block(None, 10)) for _ in range(2)]
    for name, wants in (("LATE", True), ("BLOCKS-ONLY", False)):
        it = connection()
        record = hub.admit(PeerInfo("1.1.1.1", peer_id=name), name.encode().ljust(16), it)
        assert isinstance(record, PeerRecord)
        record.relay_transactions = wants
        record.known_transactions.add(items[1])
        inventory.greet(record, it)
        assert announced(it) == ([items[0]] if wants else []) + blocks
        assert stale not in announced(it)


def test_what_a_lost_connection_owed_is_offered_to_its_successor_first() -> None:
    def work() -> None:
        inventory, hub, (a, b), _ = stage(2)
        shared, only_a, nobodys = (bytes([n]) * 32 for n in range(3))
        lost = link(a)
        a.known_transactions.update([shared, only_a])
        b.known_transactions.add(shared)
        inventory.want([shared, only_a, nobodys], lost)
        lost.end(Ending(DisconnectReason.TRANSPORT))
        successor = connection()
        hub.admit(a.info, a.node_id, successor)
        inboxes = {it: it.subscribe([wire.INV_TRANSACTIONS]) for it in (successor, link(b))}
        hub.leave(a, lost)
        inventory.release(lost, a)
        offered = {it: [wire.transaction_ids(msg) for msg in inbox.drain()] for it, inbox in inboxes.items()}
        assert offered == {successor: [[shared, only_a]], link(b): []}
        assert sorted(inventory.want([shared, only_a, nobodys], successor)) == sorted([shared, only_a, nobodys])

    on_loop(work)


async def test_what_a_full_queue_drops_is_offered_to_the_next_peer() -> None:
    inventory, _, (lost, full, free), _ = stage(3)
    item = os.urandom(32)
    inboxes = [link(one).subscribe([wire.INV_TRANSACTIONS], capacity=1) for one in (full, free)]
    link(full).table.route(wire.inv_transactions([os.urandom(32)]))
    for one in (full, free):
        one.known_transactions.add(item)
    inventory.want([item], link(lost))
    ended, lost.connection = link(lost), None
    inventory.release(ended, lost)
    offered = [[bytes(one.bytes) for m in inbox.drain() for one in m.invTransactions.ids] for inbox in inboxes]
    assert item not in offered[0]
    assert offered[1] == [item]


def test_a_transaction_without_a_known_id_cannot_be_published() -> None:
    inventory, _, _, _ = stage(0)
    with pytest.raises(ValueError, match="version 1"):
        inventory.publish_transaction(pb.TransactionMessage(version=1))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=40))
def test_a_body_store_stays_within_both_bounds(puts: list[tuple[int, int]]) -> None:
    store: BodyStore[pb.TransactionMessage] = BodyStore(count=4, size=100)
    model: dict[bytes, int] = {}
    for key, size in puts:
        body = pb.TransactionMessage(payload=bytes(size))
        item = bytes([key])
        store.put(item, body)
        if item not in model and body.ByteSize() <= 100:
            model[item] = body.ByteSize()
        while len(model) > 4 or sum(model.values()) > 100:
            del model[next(iter(model))]
        assert len(store) == len(model)
        assert all(known in store for known in model)
        assert store.newest() == (list(model)[-1] if model else None)
        assert store._bytes == sum(model.values())


@given(st.lists(st.integers(0, 20), max_size=60))
def test_a_bounded_set_keeps_the_youngest(items: list[int]) -> None:
    it = BoundedSet(5)
    model: list[int] = []
    for item in items:
        it.add(bytes([item]))
        if item in model:
            model.remove(item)
        model = [*model, item][-5:]
    assert len(it) == len(model)
    assert all(bytes([item]) in it for item in model)


def test_a_full_request_lets_other_tasks_run_in_between() -> None:
    async def main() -> None:
        it, count, turns = connection(), 200 * LIMITS.answers_per_turn, 0
        hub = Hub(os.urandom(16), LIMITS)
        inventory = Inventory(hub, LIMITS, interval=0.5, clock=lambda: 0.0)
        flow = AnswerTransactions(it, NodeConfig(limits=LIMITS))
        body = pb.RequestTransactionsMessage(ids=(pb.TransactionId(bytes=os.urandom(32)) for _ in range(count)))
        it.table.route(wire.message(wire.REQUEST_TRANSACTIONS, body))
        record = PeerRecord("key", PeerInfo(), os.urandom(16), LIMITS)
        context = FlowContext(record, inventory, AddressBook(9), lambda: 0.0, lambda _: None)
        answering = asyncio.create_task(flow.run(context))
        while len(it._queue) < count:
            await asyncio.sleep(0)
            turns += 1
        answering.cancel()
        assert turns >= 200

    asyncio.run(main())
