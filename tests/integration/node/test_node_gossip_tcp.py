"""Transactions and blocks over real gRPC on loopback, against nodes of ours and peers made by hand."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest

from punchbridge_node import fixed, gossip, ids, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.config import GossipSource, NodeConfig
from punchbridge_node.events import FlowStats, HandshakeCompleted, PeerDisconnected
from punchbridge_node.node import Node
from tests.support.node_lab import Recorder, at, channel_to, pair, raw_server, raw_to, run, serving, version

FAST = NodeConfig(ping_interval=0.03, stats_interval=0.02, transaction_broadcast_interval=0.02)


def fast(**changes: Any) -> NodeConfig:
    return FAST.with_changes(node_id=os.urandom(16), **changes)


def test_a_transaction_reaches_every_node_once_and_never_its_source() -> None:
    """A line of three, and an edge that closes it to a ring: dedup must stop the rumour."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            nodes: list[Node] = []
            heard: list[Recorder] = []
            ports: list[int] = []
            for _ in range(3):
                heard.append(Recorder())
                nodes.append(await stack.enter_async_context(Node(fast(), emit=heard[-1])))
                ports.append(await stack.enter_async_context(serving(nodes[-1])))
            for source, target in ((0, 1), (1, 2), (2, 0)):
                channel = await stack.enter_async_context(channel_to(ports[target]))
                await nodes[source].connect(channel, at(ports[target]))
            item = nodes[0].inventory.publish_transaction(gossip.transaction(300))
            block = nodes[0].inventory.publish_block(gossip.block(None, 300))
            for node, recorder in zip(nodes[1:], heard[1:], strict=True):
                await recorder.until(FlowStats, partial(lambda n, _: item in n.inventory.transactions, node))
                await recorder.until(FlowStats, partial(lambda n, _: block in n.inventory.blocks, node))
            # Two more rounds of statistics and pings: had anything gone on circling, it would show.
            rounds = [len(recorder.of(FlowStats)) + 6 for recorder in heard]
            for recorder, count in zip(heard, rounds, strict=True):
                await recorder.until(FlowStats, partial(lambda r, c, _: len(r.of(FlowStats)) >= c, recorder, count))
            received = sum(record.received["transaction"] for node in nodes for record in node.hub.active())
            blocks = sum(record.received["block"] for node in nodes for record in node.hub.active())
            assert (received, blocks) == (2, 2)
            assert [record.received["transaction"] for record in nodes[0].hub.active()] == [0, 0]
            assert nodes[2].inventory.transactions.get(item) == nodes[0].inventory.transactions.get(item)

    run(main)


def test_transactions_are_answered_in_request_order_with_not_found_between() -> None:
    async def main() -> None:
        async with pair(fast(transaction_broadcast_interval=60.0)) as (server, _, port, _, _), raw_to(port) as peer:
            known = [server.inventory.publish_transaction(gossip.transaction(50)) for _ in range(3)]
            unknown = [os.urandom(32) for _ in range(3)]
            wanted = [known[2], unknown[0], known[0], unknown[1], unknown[2], known[1]]
            await peer.shake_hands()
            request = pb.RequestTransactionsMessage(ids=[pb.TransactionId(bytes=item) for item in wanted])
            await peer.send(wire.REQUEST_TRANSACTIONS, request)
            answers: list[bytes | None] = []
            while len(answers) < len(wanted):
                msg = await peer.read()
                assert msg is not None
                if wire.payload_type(msg) == wire.TRANSACTION:
                    answers.append(ids.transaction_id(msg.transaction))
                elif wire.payload_type(msg) == wire.TRANSACTION_NOT_FOUND:
                    answers.append(msg.transactionNotFound.id.bytes)
            assert answers == wanted

    run(main)


def test_what_one_peer_did_not_find_is_asked_of_the_next_that_announces_it() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, _, _), raw_to(port) as forgetful, raw_to(port) as other:
            tx = gossip.transaction(9)
            item = ids.transaction_id(tx)
            assert item is not None
            for peer in (forgetful, other):
                await peer.shake_hands()
                await peer.call.write(wire.inv_transactions([item]))
                await peer.expect(wire.REQUEST_TRANSACTIONS)
                missing = pb.TransactionNotFoundMessage(id=pb.TransactionId(bytes=item))
                await peer.send(wire.TRANSACTION_NOT_FOUND, missing)
                await peer.send(wire.PING, pb.PingMessage())
                await peer.expect(wire.PONG)

    run(main)


def test_a_body_above_grpcios_default_limit_passes() -> None:
    async def main() -> None:
        async with pair(fast(), fast()) as (server, client, port, _, here), channel_to(port) as channel:
            await client.connect(channel, at(port))
            large = gossip.transaction(9)
            large.payload = os.urandom(9 << 20)
            item = server.inventory.publish_transaction(large)
            await here.until(FlowStats, lambda _: item in client.inventory.transactions)
            assert client.inventory.transactions.get(item) == large

    run(main)


def test_a_full_inventory_is_requested_whole() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.shake_hands()
            items = [n.to_bytes(32, "big") for n in range(fixed.MAX_INV_PER_MESSAGE)]
            inventory = wire.inv_transactions(items)
            assert inventory.ByteSize() == 4_718_597  # above grpcio's default limit, and it is gzipped on its way
            await peer.call.write(inventory)
            request = await peer.expect(wire.REQUEST_TRANSACTIONS)
            assert [item.bytes for item in request.requestTransactions.ids] == items
            await peer.send(
                wire.TRANSACTION_NOT_FOUND, pb.TransactionNotFoundMessage(id=pb.TransactionId(bytes=items[1]))
            )
            assert "requested transaction" in (await peer.expect(wire.REJECT)).reject.reason
            assert (await there.until(PeerDisconnected)).reason == "PROTOCOL_ERROR"

    run(main)


def test_one_id_too_many_disconnects() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, _, _), raw_to(port) as peer:
            await peer.shake_hands()
            await peer.call.write(wire.inv_transactions([bytes(32)] * (fixed.MAX_INV_PER_MESSAGE + 1)))
            assert "at most 131072" in (await peer.expect(wire.REJECT)).reject.reason

    run(main)


def test_a_block_is_asked_for_and_answered_by_id() -> None:
    async def main() -> None:
        async with pair() as (server, _, port, there, _), raw_to(port) as peer:
            mine = gossip.block(None, 50)
            item = server.inventory.publish_block(mine)
            await peer.shake_hands()
            # Unprompted after Ready: the newest block.
            assert (await peer.expect(wire.INV_RELAY_BLOCK)).invRelayBlock.hash.bytes == item
            request = pb.RequestRelayBlocksMessage(hashes=[pb.Hash(bytes=item)])
            await peer.send(wire.REQUEST_RELAY_BLOCKS, request, request_id=77)
            answer = await peer.expect(wire.BLOCK)
            assert (answer.responseId, answer.requestId, answer.block) == (77, 0, mine)

            theirs = gossip.block(item, 60)
            hashed = ids.block_hash(theirs)
            await peer.call.write(wire.inv_block(hashed))
            asked = await peer.expect(wire.REQUEST_RELAY_BLOCKS)
            assert asked.requestId != 0
            assert [entry.bytes for entry in asked.requestRelayBlocks.hashes] == [hashed]
            await peer.send(wire.BLOCK, theirs, response_id=asked.requestId)
            await peer.send(wire.PING, pb.PingMessage(nonce=1))
            await peer.expect(wire.PONG)
            assert server.inventory.blocks.get(hashed) == theirs
            assert there.of(PeerDisconnected) == []

    run(main)


@pytest.mark.parametrize("fault", ["without id", "another block", "not a block"])
def test_a_wrong_answer_to_a_block_request_disconnects(fault: str) -> None:
    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.shake_hands()
            wanted, other = gossip.block(None, 10), gossip.block(None, 10)
            await peer.call.write(wire.inv_block(ids.block_hash(wanted)))
            asked = (await peer.expect(wire.REQUEST_RELAY_BLOCKS)).requestId
            if fault == "without id":
                await peer.send(wire.BLOCK, wanted)
                assert all(wire.payload_type(msg) != wire.REJECT for msg in await peer.ended())
            else:
                body = (wire.BLOCK, other) if fault == "another block" else (wire.PONG, pb.PongMessage())
                await peer.send(*body, response_id=asked)
                assert "block" in (await peer.expect(wire.REJECT)).reject.reason
            reason = (await there.until(PeerDisconnected)).reason
            assert reason == ("NO_ROUTE" if fault == "without id" else "PROTOCOL_ERROR")

    run(main)


def test_a_block_we_do_not_have_is_refused_with_a_reason() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, _, _), raw_to(port) as peer:
            await peer.shake_hands()
            request = pb.RequestRelayBlocksMessage(hashes=[pb.Hash(bytes=bytes(32))])
            await peer.send(wire.REQUEST_RELAY_BLOCKS, request, request_id=5)
            assert "not found" in (await peer.expect(wire.REJECT)).reject.reason

    run(main)


def test_an_echoing_peer_neither_loops_nor_breaks_the_flows() -> None:
    """The echo binaries of the Rust crate send every message back; gossip without dedup would run for ever."""

    async def main() -> None:
        async def echo(context: Any) -> None:
            await context.write(wire.message(wire.VERSION, version(protocolVersion=5, network="kaspa-mainnet")))
            handshake = 0
            while (msg := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # The stubs lack it.
                kind = wire.payload_type(msg)
                handshake += kind in (wire.VERSION, wire.VERACK, wire.READY)
                if kind == wire.VERSION:
                    await context.write(wire.message(wire.VERACK, pb.VerackMessage()))
                elif kind == wire.READY:
                    await context.write(wire.message(wire.READY, pb.ReadyMessage()))
                elif handshake == 3:
                    await context.write(msg)

        heard = Recorder()
        config = fast(network="kaspa-mainnet", min_protocol_version=5)
        async with raw_server(echo) as port, Node(config, emit=heard) as node, channel_to(port) as channel:
            link = await node.connect(channel, at(port))
            node.inventory.publish_transaction(gossip.transaction(10))
            node.inventory.publish_block(gossip.block(None, 10))
            await heard.until(FlowStats, lambda e: e.received.get("pong", 0) >= 5)
            assert link.ending is None
            assert link.record.sent["invTransactions"] == 1
            assert link.record.sent["invRelayBlock"] == 1
            await link.close()
            await link.closed()

    run(main)


def test_synthetic_gossip_flows_both_ways() -> None:
    async def main() -> None:
        source = GossipSource(transaction_interval=0.01, block_interval=0.03, body_bytes=100)
        async with pair(fast(gossip=source), fast(gossip=source)) as (server, client, port, there, here):
            async with channel_to(port) as channel:
                await client.connect(channel, at(port))
                for recorder in (there, here):
                    await recorder.until(
                        FlowStats, lambda e: e.received.get("block", 0) > 2 and e.received.get("transaction", 0) > 9
                    )
            both = [node.inventory.blocks for node in (server, client)]
            assert all(len(store) > 4 for store in both)

    run(main)


def test_a_peer_that_wants_no_transactions_is_told_of_none() -> None:
    async def main() -> None:
        async with pair(fast()) as (server, _, port, there, _), raw_to(port) as peer:
            await peer.shake_hands(disableRelayTx=True)
            await there.until(HandshakeCompleted)
            server.inventory.publish_transaction(gossip.transaction(10))
            for nonce in range(3):
                await peer.send(wire.PING, pb.PingMessage(nonce=nonce))
                while True:
                    msg = await peer.read()
                    assert msg is not None
                    assert wire.payload_type(msg) != wire.INV_TRANSACTIONS
                    if wire.payload_type(msg) == wire.PONG:
                        break

    run(main)
