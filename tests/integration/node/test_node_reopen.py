"""A peer whose identity is proven comes back over another path: replaced, not refused; nothing it knew is lost."""

# ruff: noqa: SIM117 - nested blocks show which peer outlives which
from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from punchbridge_node import gossip, ids, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.config import GossipSource, NodeConfig
from punchbridge_node.errors import DisconnectReason, HandshakeError, HandshakeFailure
from punchbridge_node.events import FlowStats, HandshakeCompleted, HandshakeRefused, PeerDisconnected
from punchbridge_node.node import Node
from punchbridge_node.peerstore import PeerStore
from punchbridge_node.storekeeper import StoreKeeper
from punchbridge_node.transport import PeerInfo
from tests.support.node_lab import Recorder, channel_to, raw_to, run, serving

FAST = NodeConfig(ping_interval=0.05, stats_interval=0.02, transaction_broadcast_interval=0.02)


def fast(**changes: Any) -> NodeConfig:
    return FAST.with_changes(node_id=os.urandom(16), **changes)


class PathNow:
    """A path that changes below a living stream."""

    def __init__(self, now: str = "relay") -> None:
        self.now = now

    def __call__(self) -> str:
        return self.now


def known(peer_id: str, path: PathNow | None = None) -> PeerInfo:
    return PeerInfo(peer_id=peer_id, path_of=path or PathNow("direct"))


def as_peer(info: PeerInfo) -> Callable[[Any], PeerInfo]:
    return lambda _context: info


@asynccontextmanager
async def two(
    server_config: NodeConfig, client_config: NodeConfig, caller: PeerInfo
) -> AsyncIterator[tuple[Node, Node, int, Recorder, Recorder]]:
    there, here = Recorder(), Recorder()
    async with (
        Node(server_config, emit=there) as server,
        Node(client_config, emit=here) as client,
        serving(server, as_peer(caller)) as port,
    ):
        yield server, client, port, there, here


def test_reopening_keeps_the_peer_its_counters_and_its_inventory() -> None:
    async def main() -> None:
        async with two(fast(), fast(), known("CLIENT")) as (server, client, port, there, here):
            path = PathNow("relay")
            async with channel_to(port) as relayed, channel_to(port) as direct:
                link = await client.connect(relayed, known("SERVER", path))
                record = link.record
                assert (record.key, link.path) == ("SERVER", "relay")
                await here.until(FlowStats, lambda e: e.received.get("pong", 0) >= 2)
                await link.reopen(direct, known("SERVER", PathNow("direct")))
                assert link.record is record
                assert link.path == "direct"
                for recorder in (here, there):
                    ended = await recorder.until(PeerDisconnected)
                    assert (ended.reason, ended.remaining) == ("REPLACED", True)
                pongs = record.received["pong"]
                await here.until(FlowStats, lambda e: e.received.get("pong", 0) >= pongs + 2)
                assert [event.path for event in here.of(HandshakeCompleted)] == ["relay", "direct"]
                assert len(there.of(HandshakeCompleted)) == 2
                assert here.of(HandshakeRefused) == there.of(HandshakeRefused) == []
                for recorder in (here, there):
                    for direction in ("sent", "received"):
                        course = [getattr(event, direction) for event in recorder.of(FlowStats)]
                        for before, after in itertools.pairwise(course):
                            assert all(after.get(name, 0) >= count for name, count in before.items())
                assert record.sent["version"] == 2
                assert len(server.hub.active()) == len(client.hub.active()) == 1

    run(main)


def test_no_item_is_lost_while_gossip_runs_and_the_stream_is_replaced_again_and_again() -> None:
    async def main() -> None:
        source = GossipSource(transaction_interval=0.01, block_interval=0.02, body_bytes=50)
        caller = known("CLIENT")
        async with two(fast(gossip=source), fast(gossip=source), caller) as (server, client, port, there, here):
            channels = [channel_to(port) for _ in range(8)]
            opened = [await channel.__aenter__() for channel in channels]
            link = await client.connect(opened[0], known("SERVER"))
            for count, channel in enumerate(opened[1:], 2):
                blocks = link.record.received["block"]
                await here.until(FlowStats, partial(lambda b, e: e.received.get("block", 0) > b, blocks))
                await link.reopen(channel, known("SERVER"))
                await there.until(
                    HandshakeCompleted, partial(lambda c, _: len(there.of(HandshakeCompleted)) == c, count)
                )
            # What either side has now, the other gets; later items may still be under way.
            for one, other, heard in ((server, client, here), (client, server, there)):
                for kind in ("transactions", "blocks"):
                    mine, theirs = getattr(one.inventory, kind), getattr(other.inventory, kind)
                    now = list(mine._items)
                    assert len(now) > 10
                    await heard.until(FlowStats, partial(lambda n, t, _: all(item in t for item in n), now, theirs))
            assert link.record.connections == 8
            for entered in channels:
                await entered.__aexit__(None, None, None)

    run(main)


def test_a_cut_stream_leaves_counters_that_go_on_at_the_next() -> None:
    async def main() -> None:
        async with two(fast(), fast(), known("CLIENT")) as (_, client, port, there, here):
            async with channel_to(port) as first:
                link = await client.connect(first, known("SERVER"))
                await here.until(FlowStats, lambda e: e.received.get("pong", 0) >= 2)
            # The channel is closed below the stream, as when a path dies.
            ending = await link.closed()
            assert ending.reason is DisconnectReason.TRANSPORT
            await there.until(PeerDisconnected, lambda e: not e.remaining)
            before = link.record.received["pong"]
            async with channel_to(port) as second:
                await link.reopen(second, known("SERVER"))
                await here.until(FlowStats, lambda e: e.received.get("pong", 0) > before + 1)
                assert link.ending is None

    run(main)


def test_what_a_lost_peer_owed_is_asked_of_another_that_has_it() -> None:
    async def main() -> None:
        tx = gossip.transaction(20)
        item = ids.transaction_id(tx)
        assert item is not None
        block = gossip.block(None, 20)
        block_hash = ids.block_hash(block)
        there = Recorder()
        async with Node(fast(), emit=there) as server, serving(server) as port:
            async with raw_to(port) as silent, raw_to(port) as other:
                for peer in (silent, other):
                    await peer.shake_hands()
                await silent.call.write(wire.inv_transactions([item]))
                await silent.call.write(wire.inv_block(block_hash))
                await silent.expect(wire.REQUEST_TRANSACTIONS)
                await other.call.write(wire.inv_transactions([item]))
                await other.call.write(wire.inv_block(block_hash))
                await other.send(wire.PING, pb.PingMessage(nonce=1))
                await other.expect(wire.PONG)  # it has read them, and asked nothing: the first peer was asked
                silent.call.cancel()
                wanted = {wire.REQUEST_TRANSACTIONS, wire.REQUEST_RELAY_BLOCKS}
                while wanted:
                    msg = await other.read()
                    assert msg is not None
                    kind = wire.payload_type(msg)
                    wanted.discard(kind)
                    if kind == wire.REQUEST_TRANSACTIONS:
                        await other.send(wire.TRANSACTION, tx)
                    elif kind == wire.REQUEST_RELAY_BLOCKS:
                        await other.send(wire.BLOCK, block, response_id=msg.requestId)
                await there.until(FlowStats, lambda _: item in server.inventory.transactions)
                await there.until(FlowStats, lambda _: block_hash in server.inventory.blocks)

    run(main)


def test_a_peer_that_comes_back_is_asked_again_and_told_again() -> None:
    async def main() -> None:
        there = Recorder()
        async with Node(fast(), emit=there) as server, serving(server, as_peer(known("RAW"))) as port:
            tx = gossip.transaction(20)
            wanted = ids.transaction_id(tx)
            assert wanted is not None
            async with raw_to(port) as first, raw_to(port) as second:
                await first.shake_hands(id=b"r" * 16)
                await first.call.write(wire.inv_transactions([wanted]))
                await first.expect(wire.REQUEST_TRANSACTIONS)
                told = server.inventory.publish_transaction(gossip.transaction(30))
                await first.expect(wire.INV_TRANSACTIONS)
                # Neither is answered or asked for; the peer opens its next stream and drops this one.
                await second.shake_hands(id=b"r" * 16)
                again = await second.expect(wire.INV_TRANSACTIONS)
                assert told in [item.bytes for item in again.invTransactions.ids]
                await first.call.done_writing()
                request = await second.expect(wire.REQUEST_TRANSACTIONS)
                assert [item.bytes for item in request.requestTransactions.ids] == [wanted]
                await second.send(wire.TRANSACTION, tx)
                await there.until(FlowStats, lambda _: wanted in server.inventory.transactions)

    run(main)


def test_reopening_to_another_peer_or_to_nobody_keeps_the_stream() -> None:
    async def main() -> None:
        async with two(fast(), fast(connect_timeout=0.3), known("CLIENT")) as (_, client, port, _, here):
            async with Node(fast()) as stranger, serving(stranger) as other_port:
                async with channel_to(port) as channel, channel_to(other_port) as wrong, channel_to(1) as nowhere:
                    link = await client.connect(channel, known("SERVER"))
                    with pytest.raises(HandshakeError, match="expected SERVER, STRANGER answered"):
                        await link.reopen(wrong, known("STRANGER"))
                    with pytest.raises(HandshakeError) as caught:
                        await link.reopen(nowhere, known("SERVER"))
                    assert caught.value.failure is HandshakeFailure.UNREACHABLE
                    assert link.ending is None
                    assert link.record.key == "SERVER"
                    pongs = link.record.received["pong"]
                    await here.until(FlowStats, lambda e: e.peer == "SERVER" and e.received.get("pong", 0) > pongs)

    run(main)


def test_a_restarted_peer_replaces_its_former_self() -> None:
    async def main() -> None:
        there = Recorder()
        async with Node(fast(), emit=there) as server, serving(server, as_peer(known("CLIENT"))) as port:
            async with raw_to(port) as before, raw_to(port) as after:
                await before.shake_hands(id=b"a" * 16)
                await there.until(HandshakeCompleted)
                await after.shake_hands(id=b"b" * 16)
                await there.until(HandshakeCompleted, lambda _: len(there.of(HandshakeCompleted)) == 2)
                (record,) = server.hub.active()
                assert record.node_id == b"b" * 16
                await after.send(wire.PING, pb.PingMessage(nonce=4))
                await after.expect(wire.PONG)

    run(main)


@pytest.mark.parametrize("round_", range(5))
def test_two_peers_that_dial_each_other_at_once_keep_one_stream(round_: int) -> None:
    async def main() -> None:
        left, right = Recorder(), Recorder()
        async with (
            Node(fast(), emit=left) as a,
            Node(fast(), emit=right) as b,
            serving(a, as_peer(known("B"))) as a_port,
            serving(b, as_peer(known("A"))) as b_port,
            channel_to(a_port) as to_a,
            channel_to(b_port) as to_b,
        ):
            results = await asyncio.gather(
                a.connect(to_b, known("B")), b.connect(to_a, known("A")), return_exceptions=True
            )
            for result in results:
                assert not isinstance(result, BaseException) or isinstance(result, HandshakeError)
            # One stream is left on either side, and it is the same one: dialled by the smaller node id.
            for node, recorder in ((a, left), (b, right)):
                (record,) = node.hub.active()
                await recorder.until(FlowStats, lambda e: e.received.get("pong", 0) >= 3)
                assert record.connection is not None
                assert record.connection.ending is None
            kept = [node.hub.active()[0].connection for node in (a, b)]
            assert [c.outbound for c in kept if c is not None] in ([True, False], [False, True])

    run(main)


def test_the_handlers_peer_is_found_by_the_bridge_adaptor_and_followed(tmp_path: Path) -> None:
    from punchbridge_node.transport import identify_bridge

    class Info:
        peer_id = "12D3KooWPeer"
        path = "relay"
        multiaddr = "/ip4/11.0.0.1/tcp/1/p2p/R/p2p-circuit/p2p/12D3KooWPeer"
        observed: str | None = None
        address = ("fd00::1", 1)

    async def main() -> None:
        info, there = Info(), Recorder()
        store = PeerStore(tmp_path / "peers.db")
        keeper = StoreKeeper(store)
        identify = identify_bridge(lambda _: info)
        async with Node(fast(), emit=there, keeper=keeper) as server, serving(server, identify) as port:
            async with raw_to(port) as peer:
                await peer.shake_hands()
                heard = await there.until(HandshakeCompleted)
                assert (heard.peer, heard.path) == ("12D3KooWPeer", "relay")
                # The same stream, another path below it.
                info.path, info.observed = "direct", "/ip4/12.0.0.1/tcp/7"
                await there.until(FlowStats, lambda e: e.path == "direct")
        (stored,) = store.peers(now=0)
        assert (stored.key, stored.peer_id, stored.observed) == (info.peer_id, info.peer_id, (info.observed,))
        store.close()

    run(main)
