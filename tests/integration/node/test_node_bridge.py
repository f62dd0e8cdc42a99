"""The same node modules over plain TCP gRPC and over the bridge: one set of tests, run on either."""

# ruff: noqa: SIM117 - nested blocks show which peer outlives which
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

import punchbridge
from punchbridge.local.peer import synthesized_address
from punchbridge_node import transport
from punchbridge_node.config import GossipSource, NodeConfig
from punchbridge_node.errors import HandshakeError, HandshakeFailure
from punchbridge_node.events import FlowStats, HandshakeCompleted, PeerDisconnected
from punchbridge_node.node import Node
from punchbridge_node.session import refuse_relayed
from punchbridge_node.transport import PeerInfo, identify_bridge, tcp_peer
from tests.support.node_lab import HOST, Recorder, channel_to, run, serving

FAST = NodeConfig(ping_interval=0.05, stats_interval=0.02, transaction_broadcast_interval=0.02)


def fast(**changes: Any) -> NodeConfig:
    return FAST.with_changes(node_id=os.urandom(16), **changes)


@dataclass
class Way:
    """How the client reaches the server. `channel` makes a further channel; `path`: what both should name."""

    channel: Callable[[], AbstractAsyncContextManager[Any]]
    info: PeerInfo
    path: str
    client_name: str | None


@asynccontextmanager
async def over_tcp(server: Node) -> AsyncIterator[Way]:
    async with serving(server) as port:
        yield Way(lambda: channel_to(port), tcp_peer(HOST, port), "tcp", None)


@asynccontextmanager
async def over_bridge(server: Node) -> AsyncIterator[Way]:
    with ExitStack() as stack:
        listen = ["/ip4/127.0.0.1/tcp/0"]
        there, here = (
            stack.enter_context(
                punchbridge.open(listen=listen, punch=False, allow_private=True, allow=punchbridge.ANYONE)
            )
            for _ in range(2)
        )
        grpc_server = grpc.aio.server(options=transport.SERVER_OPTIONS)
        server.add_to_server(grpc_server, identify_bridge(punchbridge.peer))
        there.serve(grpc_server)
        await grpc_server.start()
        target = there.addrs[0]

        @asynccontextmanager
        async def channel() -> AsyncIterator[Any]:
            made = here.aio_channel(target, fresh=True, options=transport.CHANNEL_OPTIONS)
            try:
                yield made
            finally:
                await made.close(None)

        host, port = synthesized_address(there.peer_id)
        try:
            yield Way(channel, PeerInfo(host, port, there.peer_id, lambda: "direct"), "direct", here.peer_id)
        finally:
            await server.close()
            await grpc_server.stop(0.5)


WAYS = {"tcp": over_tcp, "bridge": over_bridge}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Node], AbstractAsyncContextManager[Way]]:
    return WAYS[request.param]


def test_handshake_flows_and_gossip(way: Callable[[Node], AbstractAsyncContextManager[Way]]) -> None:
    async def main() -> None:
        there, here = Recorder(), Recorder()
        source = GossipSource(transaction_interval=0.02, block_interval=0.05)
        async with Node(fast(gossip=source), emit=there) as server, Node(fast(gossip=source), emit=here) as client:
            async with way(server) as reached, reached.channel() as channel:
                link = await client.connect(channel, reached.info)
                heard = await there.until(HandshakeCompleted)
                assert heard.path == link.path == reached.path
                if reached.client_name is not None:
                    assert heard.peer == reached.client_name
                    assert link.record.key == reached.info.peer_id
                wanted = ("pong", "addresses", "transaction", "block")
                for recorder in (there, here):
                    await recorder.until(FlowStats, lambda e: all(e.received.get(name, 0) for name in wanted))
                await client.close()
                await there.until(PeerDisconnected)

    run(main)


def test_a_large_body_and_a_refusal(way: Callable[[Node], AbstractAsyncContextManager[Way]]) -> None:
    from punchbridge_node import gossip

    async def main() -> None:
        here = Recorder()
        async with Node(fast()) as server, Node(fast(), emit=here) as client:
            async with way(server) as reached, reached.channel() as channel:
                stranger = Node(fast(network="kaspa-simnet"))
                async with stranger, reached.channel() as other:
                    with pytest.raises(HandshakeError) as caught:
                        await stranger.connect(other, reached.info)
                    assert "network" in caught.value.reason
                await client.connect(channel, reached.info)
                large = gossip.transaction(9)
                large.payload = os.urandom(6 << 20)
                item = server.inventory.publish_transaction(large)
                await here.until(FlowStats, lambda _: item in client.inventory.transactions)

    run(main)


def test_a_second_stream_is_a_duplicate_over_tcp_and_a_successor_over_the_bridge(
    way: Callable[[Node], AbstractAsyncContextManager[Way]],
) -> None:
    async def main() -> None:
        there, here = Recorder(), Recorder()
        async with Node(fast(), emit=there) as server, Node(fast(), emit=here) as client:
            async with way(server) as reached, reached.channel() as first, reached.channel() as second:
                link = await client.connect(first, reached.info)
                await here.until(FlowStats, lambda e: e.received.get("pong", 0) > 1)
                if reached.path == "tcp":
                    with pytest.raises(HandshakeError) as caught:
                        await link.reopen(second, reached.info)
                    assert caught.value.reason == "DUPLICATE_CONNECTION"
                else:
                    await link.reopen(second, reached.info)
                    assert (await there.until(PeerDisconnected)).reason == "REPLACED"
                before = link.record.received["pong"]
                await here.until(FlowStats, lambda e: e.received.get("pong", 0) > before)
                assert len(server.hub.active()) == 1

    run(main)


def test_a_node_that_reaches_itself_is_told(way: Callable[[Node], AbstractAsyncContextManager[Way]]) -> None:
    async def main() -> None:
        async with Node(fast()) as node, way(node) as reached, reached.channel() as channel:
            with pytest.raises(HandshakeError) as caught:
                await node.connect(channel, reached.info)
            assert caught.value.reason == "LOOPBACK_CONNECTION"

    run(main)


def test_a_policy_sees_peer_id_and_path(way: Callable[[Node], AbstractAsyncContextManager[Way]]) -> None:
    seen: list[tuple[str | None, str]] = []

    def policy(info: PeerInfo, version: Any) -> str | None:
        seen.append((info.peer_id, info.path))
        assert refuse_relayed(info, version) is None
        return "strangers are refused"

    async def main() -> None:
        async with Node(fast(), policy=policy) as server, Node(fast()) as client:
            async with way(server) as reached, reached.channel() as channel:
                with pytest.raises(HandshakeError) as caught:
                    await client.connect(channel, reached.info)
                assert caught.value.failure is HandshakeFailure.REJECTED_BY_PEER
                assert seen == [(reached.client_name, reached.path)]

    run(main)


def test_a_call_that_no_bridge_made_is_refused() -> None:
    async def main() -> None:
        async with Node(fast()) as server, Node(fast()) as client:
            async with serving(server, identify_bridge(punchbridge.peer)) as port, channel_to(port) as channel:
                with pytest.raises(HandshakeError) as caught:
                    await client.connect(channel, tcp_peer(HOST, port))
                assert "UNAUTHENTICATED" in caught.value.reason

    run(main)
