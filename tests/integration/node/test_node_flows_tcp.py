"""Ping, addresses and the edges of every flow over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc
import pytest

from punchbridge_node import fixed, gossip, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.addressbook import NetworkAddress
from punchbridge_node.config import NodeConfig
from punchbridge_node.errors import DisconnectReason
from punchbridge_node.events import FlowStats, PeerDisconnected
from tests.support.node_lab import HOST, at, channel_to, pair, raw_to, run

FAST = NodeConfig(ping_interval=0.03, stats_interval=0.02, transaction_broadcast_interval=0.02)


def fast(**changes: Any) -> NodeConfig:
    return FAST.with_changes(node_id=os.urandom(16), **changes)


def test_pings_are_answered_and_measure_the_round_trip() -> None:
    async def main() -> None:
        async with pair(fast(), fast()) as (_, client, port, _, here), channel_to(port) as channel:
            link = await client.connect(channel, at(port))
            await here.until(FlowStats, lambda e: e.received.get("pong", 0) >= 3 and e.received.get("ping", 0) >= 3)
            assert link.record.rtt is not None
            assert 0 < link.record.rtt < 1

    run(main)


def test_a_wrong_nonce_and_a_missing_pong_disconnect_with_a_reason() -> None:
    async def main() -> None:
        async with pair(fast(answer_timeout=0.1)) as (_, _, port, there, _):
            async with raw_to(port) as liar:
                await liar.shake_hands()
                ping = await liar.expect(wire.PING)
                await liar.send(wire.PONG, pb.PongMessage(nonce=ping.ping.nonce ^ 1))
                assert "nonce" in (await liar.expect(wire.REJECT)).reject.reason
            async with raw_to(port) as mute:
                await mute.shake_hands()
                reasons = {(await mute.expect(wire.REJECT)).reject.reason}
                assert reasons <= {"no pong within 0.1 s", "no addresses within 0.1 s"}
                await there.until(PeerDisconnected, lambda e: e.reason == "ANSWER_TIMEOUT")

    run(main)


def test_addresses_are_asked_for_at_once_and_answered() -> None:
    async def main() -> None:
        async with pair() as (server, _, port, _, _), raw_to(port) as peer:
            known = [NetworkAddress(f"11.0.{n // 250}.{n % 250 + 1}", 16611) for n in range(1500)]
            server.addresses.add(known)
            await peer.shake_hands()
            await peer.expect(wire.REQUEST_ADDRESSES)
            await peer.send(wire.REQUEST_ADDRESSES, pb.RequestAddressesMessage())
            answer = (await peer.expect(wire.ADDRESSES)).addresses.addressList
            assert len(answer) == fixed.MAX_ADDRESSES_SENT
            assert NetworkAddress.from_wire(answer[0]) == known[-1]
            ours = [NetworkAddress(f"12.0.{n // 250}.{n % 250 + 1}", 1) for n in range(2500)]
            await peer.send(wire.ADDRESSES, pb.AddressesMessage(addressList=[item.to_wire() for item in ours]))
            await peer.send(wire.PING, pb.PingMessage(nonce=1))
            await peer.expect(wire.PONG)
            await peer.send(wire.ADDRESSES, pb.AddressesMessage())
            assert "nobody asked" in (await peer.expect(wire.REJECT)).reject.reason
            assert ours[0] in server.addresses.newest(5000)

    run(main)


BAD_ADDRESSES = {
    "too many": [NetworkAddress("11.0.0.1", 1).to_wire()] * 2501,
    "ip": [pb.NetAddress(ip=b"12345", port=1)],
    "port": [pb.NetAddress(ip=bytes(4), port=70000)],
}


@pytest.mark.parametrize("fault", BAD_ADDRESSES)
def test_a_bad_address_list_disconnects(fault: str) -> None:
    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.shake_hands()
            await peer.send(wire.ADDRESSES, pb.AddressesMessage(addressList=BAD_ADDRESSES[fault]))
            await peer.expect(wire.REJECT)
            assert (await there.until(PeerDisconnected)).reason == DisconnectReason.PROTOCOL_ERROR.value

    run(main)


def test_a_dialled_peers_own_address_enters_the_book() -> None:
    async def main() -> None:
        advertised = fast(advertise=("11.0.0.7", 16611))
        async with pair(advertised) as (_, client, port, _, _), channel_to(port) as channel:
            await client.connect(channel, at(port))
            assert client.addresses.newest() == [NetworkAddress("11.0.0.7", 16611)]  # loopback is left out

    run(main)


def test_block_download_requests_are_taken_and_not_answered() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, _, _), raw_to(port) as peer:
            await peer.shake_hands()
            for kind in wire.UNANSWERED_REQUESTS:
                await peer.send(kind, type(getattr(pb.KaspadMessage(), kind))(), request_id=3)
            await peer.send(wire.PING, pb.PingMessage(nonce=9))
            assert (await peer.expect(wire.PONG)).pong.nonce == 9

    run(main)


@pytest.mark.parametrize("kind", [wire.BLOCK_BODY, wire.TRUSTED_DATA])
def test_a_type_without_a_route_disconnects_without_a_reject(kind: wire.PayloadType) -> None:
    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.shake_hands()
            await peer.send(kind, type(getattr(pb.KaspadMessage(), kind))())
            assert all(wire.payload_type(msg) != wire.REJECT for msg in await peer.ended())
            assert (await there.until(PeerDisconnected)).reason == "NO_ROUTE"

    run(main)


def test_a_flood_of_pings_that_reads_nothing_is_cut_off() -> None:
    """Answers back up when the peer reads nothing; its pings then fill their route."""

    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.shake_hands()

            async def flood() -> None:
                try:
                    while True:
                        await peer.call.write(wire.message(wire.REQUEST_TRANSACTIONS, BIG_REQUEST))
                except (grpc.RpcError, asyncio.InvalidStateError):
                    return  # cut off, as it should be; the event below says why

            async with asyncio.TaskGroup() as group:
                flooding = group.create_task(flood())
                assert (await there.until(PeerDisconnected)).reason == "ROUTE_FULL"
                peer.call.cancel()
                flooding.cancel()

    run(main)


BIG_REQUEST = pb.RequestTransactionsMessage(ids=[pb.TransactionId(bytes=bytes(32))] * 2000)


def test_what_is_sent_is_compressed() -> None:
    """Counted on a proxy: a transaction of a megabyte of zeros crosses in a fraction of that, both ways."""

    async def main() -> None:
        counts = [0, 0]

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(HOST, port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: int) -> None:
                try:
                    while data := await source.read(65536):
                        counts[way] += len(data)
                        sink.write(data)
                        await sink.drain()
                except OSError:
                    return
                finally:
                    sink.close()

            await asyncio.gather(pump(reader, far_writer, 0), pump(far_reader, writer, 1))

        async with pair(fast(), fast()) as (server, client, port, there, here):
            front = await asyncio.start_server(proxy, HOST, 0)
            front_port = front.sockets[0].getsockname()[1]
            async with channel_to(front_port) as channel:
                await client.connect(channel, at(front_port))
                for node in (server, client):
                    zeros = gossip.transaction(16)
                    zeros.payload += bytes(1 << 20)
                    node.inventory.publish_transaction(zeros)
                for recorder in (there, here):
                    await recorder.until(FlowStats, lambda e: e.received.get("transaction", 0) == 1)
                await client.close()
            front.close()
            await front.wait_closed()
        assert max(counts) < 100_000

    run(main)
