"""The handshake over real gRPC on loopback: both ways, every refusal, silence, and a peer like tonic's client."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest

from punchbridge_node import wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.config import HandshakeTimes, NodeConfig, NodeLimits
from punchbridge_node.errors import HandshakeError, HandshakeFailure
from punchbridge_node.events import FlowStats, HandshakeCompleted, HandshakeRefused, PeerDisconnected
from punchbridge_node.node import Node
from punchbridge_node.session import refuse_relayed
from punchbridge_node.transport import PeerInfo
from tests.support.node_lab import (
    RawPeer,
    Recorder,
    at,
    channel_to,
    pair,
    quick,
    raw_server,
    raw_to,
    run,
    serving,
    version,
)


def test_two_nodes_shake_hands_and_both_say_so() -> None:
    async def main() -> None:
        dialler = NodeConfig(user_agent="/dialler:1/", stats_interval=0.02)
        async with pair(None, dialler) as (server, client, port, there, here), channel_to(port) as channel:
            link = await client.connect(channel, at(port))
            heard = await there.until(HandshakeCompleted)
            assert heard.user_agent == "/dialler:1/"
            assert heard.path == "tcp"
            told = await here.until(HandshakeCompleted)
            assert told.peer == link.record.key == f"{server.config.node_id.hex()}@127.0.0.1"
            assert heard.peer == f"{client.config.node_id.hex()}@127.0.0.1"
            once = {"version": 1, "verack": 1, "ready": 1}
            # A message counts as sent when gRPC has taken it, which may be after the peer's answer.
            await here.until(FlowStats, lambda e: once.items() <= e.sent.items() and once.items() <= e.received.items())

    run(main)


REFUSALS: list[tuple[dict[str, Any], HandshakeFailure, str]] = [
    ({"id": b"short"}, HandshakeFailure.BAD_NODE_ID, "node id of 5 bytes"),
    ({"network": "kaspa-mainnet"}, HandshakeFailure.WRONG_NETWORK, "expected kaspa-devnet, got kaspa-mainnet"),
    ({"protocolVersion": 9}, HandshakeFailure.PROTOCOL_VERSION, "expected at least 10, got 9"),
    ({"userAgent": "/evil:1/"}, HandshakeFailure.USER_AGENT, "user agent not accepted"),
    ({"userAgent": "/banned-by-policy:1/"}, HandshakeFailure.POLICY, "not today"),
]


@pytest.mark.parametrize(("changes", "failure", "text"), REFUSALS, ids=[item[1].value for item in REFUSALS])
def test_each_refusal_reaches_the_peer_as_a_reject(
    changes: dict[str, Any], failure: HandshakeFailure, text: str
) -> None:
    def policy(_info: PeerInfo, theirs: pb.VersionMessage) -> str | None:
        return "not today" if "policy" in theirs.userAgent else None

    async def main() -> None:
        config = NodeConfig(user_agent_deny=("evil",))
        async with pair(config, policy=policy) as (_, _, port, there, _), raw_to(port) as peer:
            await peer.send(wire.VERSION, version(**changes))
            await peer.send(wire.VERACK, pb.VerackMessage())
            reject = await peer.expect(wire.REJECT)
            assert text in reject.reject.reason
            assert await peer.ended() == []
            refused = await there.until(HandshakeRefused)
            assert (refused.failure, refused.by) == (failure.value, "us")

    run(main)


def test_the_dialler_gets_the_reject_as_a_typed_error() -> None:
    async def main() -> None:
        async with pair(NodeConfig(network="kaspa-mainnet"), quick(network="kaspa-mainnet")) as (_, client, port, _, _):
            other = NodeConfig(network="kaspa-simnet")
            async with Node(other) as stranger, channel_to(port) as channel:
                with pytest.raises(HandshakeError) as caught:
                    await stranger.connect(channel, at(port))
                # Both sides refuse; whichever Reject is first decides, and each names the network.
                assert caught.value.failure in (HandshakeFailure.WRONG_NETWORK, HandshakeFailure.REJECTED_BY_PEER)
                assert "network" in caught.value.reason
                assert stranger.hub.active() == []
            async with channel_to(port) as channel:
                await client.connect(channel, at(port))  # the server is none the worse

    run(main)


def test_a_version_of_the_peer_below_ours_is_refused_with_its_number() -> None:
    async def main() -> None:
        async with pair(NodeConfig(), NodeConfig(protocol_version=8, min_protocol_version=5)) as parts:
            _, client, port, _, _ = parts
            async with channel_to(port) as channel:
                with pytest.raises(HandshakeError) as caught:
                    await client.connect(channel, at(port))
                assert caught.value.failure is HandshakeFailure.REJECTED_BY_PEER
                assert "at least 10, got 8" in caught.value.reason

    run(main)


def test_a_duplicate_over_tcp_is_rejected_and_the_first_stays() -> None:
    async def main() -> None:
        async with pair() as (server, client, port, _, _), channel_to(port) as first, channel_to(port) as second:
            link = await client.connect(first, at(port))
            # The dialler would see the duplicate itself; a process that does not, is told.
            async with raw_to(port) as peer:
                await peer.send(wire.VERSION, version(id=client.config.node_id))
                await peer.send(wire.VERACK, pb.VerackMessage())
                assert (await peer.expect(wire.REJECT)).reject.reason == "DUPLICATE_CONNECTION"
            with pytest.raises(HandshakeError) as caught:
                await client.connect(second, at(port))
            assert caught.value.failure is HandshakeFailure.DUPLICATE
            assert link.ending is None
            assert len(server.hub.active()) == 1

    run(main)


def test_a_node_that_dials_itself_gets_the_loopback_reason() -> None:
    async def main() -> None:
        async with Node(NodeConfig()) as node, serving(node) as port, channel_to(port) as channel:
            with pytest.raises(HandshakeError) as caught:
                await node.connect(channel, at(port))
            assert caught.value.reason == "LOOPBACK_CONNECTION"
            assert caught.value.failure is HandshakeFailure.LOOPBACK

    run(main)


def test_relayed_peers_can_be_refused_by_a_policy() -> None:
    async def main() -> None:
        async with Node(NodeConfig(), policy=refuse_relayed) as server, Node(NodeConfig()) as client:
            relayed = PeerInfo(peer_id="12D3KooWRelayed", path_of=lambda: "relay")
            async with serving(server, lambda _: relayed) as port, channel_to(port) as channel:
                with pytest.raises(HandshakeError) as caught:
                    await client.connect(channel, at(port))
                assert caught.value.failure is HandshakeFailure.REJECTED_BY_PEER
                assert caught.value.reason == "relayed peers are not accepted here"

    run(main)


SILENCE = {
    "version": ([], HandshakeFailure.VERSION_TIMEOUT),
    "verack": ([wire.VERSION], HandshakeFailure.VERACK_TIMEOUT),
    "ready": ([wire.VERSION, wire.VERACK], HandshakeFailure.READY_TIMEOUT),
}
BODIES = {wire.VERACK: pb.VerackMessage(), wire.READY: pb.ReadyMessage()}


@pytest.mark.parametrize("missing", SILENCE)
def test_a_peer_that_stops_speaking_is_given_up_in_time(missing: str) -> None:
    said, failure = SILENCE[missing]

    async def main() -> None:
        async with pair(quick()) as (server, _, port, there, _), raw_to(port) as peer:
            for kind in said:
                await peer.send(kind, version() if kind == wire.VERSION else BODIES[kind])
            assert missing in (await peer.expect(wire.REJECT)).reject.reason
            assert (await there.until(HandshakeRefused)).failure == failure.value
            assert server.hub.active() == []

    run(main)


def test_a_slow_path_gets_more_time() -> None:
    async def main() -> None:
        relayed = PeerInfo(peer_id="12D3KooWSlow", path_of=lambda: "relay")
        config = NodeConfig(handshake=HandshakeTimes(0.1, 0.1, 0.1), slow_path_multiplier=5.0)
        async with Node(config) as server, serving(server, lambda _: relayed) as port, raw_to(port) as peer:
            loop = asyncio.get_running_loop()
            before = loop.time()
            await peer.expect(wire.REJECT)
            assert loop.time() - before >= 0.45

    run(main)


def test_a_mute_server_is_given_up_in_time() -> None:
    async def main() -> None:
        released = asyncio.Event()

        async def mute(_context: Any) -> None:
            await released.wait()

        async with raw_server(mute) as port, Node(quick()) as node, channel_to(port) as channel:
            with pytest.raises(HandshakeError) as caught:
                await node.connect(channel, at(port))
            assert caught.value.failure is HandshakeFailure.VERSION_TIMEOUT
            released.set()

    run(main)


def test_nobody_there_is_unreachable() -> None:
    async def main() -> None:
        async with Node(NodeConfig(connect_timeout=0.3)) as node, channel_to(1) as channel:
            with pytest.raises(HandshakeError) as caught:
                await node.connect(channel, at(1))
            assert caught.value.failure is HandshakeFailure.UNREACHABLE

    run(main)


def test_a_server_that_knows_no_such_method_is_a_typed_failure() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with Node(NodeConfig()) as node, channel_to(port) as channel:
            with pytest.raises(HandshakeError) as caught:
                await node.connect(channel, at(port))
            assert caught.value.failure is HandshakeFailure.CLOSED_BY_PEER
            assert "UNIMPLEMENTED" in caught.value.reason
        await server.stop(0)

    run(main)


def test_a_client_that_waits_for_the_response_headers_is_served() -> None:
    """tonic's client sends its Version only after it has seen the headers (the initial-metadata deadlock)."""

    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.call.initial_metadata()
            await peer.shake_hands()
            await there.until(HandshakeCompleted)

    run(main)


@pytest.mark.parametrize("repeated", [wire.VERSION, wire.VERACK, wire.READY])
def test_a_handshake_message_after_the_handshake_disconnects(repeated: wire.PayloadType) -> None:
    async def main() -> None:
        async with pair() as (server, _, port, _, _), raw_to(port) as peer:
            await peer.shake_hands()
            await peer.send(repeated, version() if repeated == wire.VERSION else BODIES[repeated])
            await peer.ended()
            assert server.hub.active() == []

    run(main)


def test_a_flow_message_before_the_handshake_disconnects() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, there, _), raw_to(port) as peer:
            await peer.send(wire.PING, pb.PingMessage(nonce=1))
            assert [wire.payload_type(msg) for msg in await peer.ended()] == [wire.VERSION]
            assert "no route" in (await there.until(HandshakeRefused)).reason

    run(main)


def test_bytes_that_are_no_message_are_answered_with_a_reject() -> None:
    async def main() -> None:
        async with pair() as (_, _, port, there, _), channel_to(port) as channel:
            await channel.channel_ready()
            call = channel.stream_stream(wire.PATH, request_serializer=None, response_deserializer=None)(None)
            await call.write(b"\xff\xff\xff garbage")
            assert (await there.until(HandshakeRefused)).failure == HandshakeFailure.PROTOCOL_ERROR.value
            answers = []
            while isinstance(data := await call.read(), bytes):
                answers.append(wire.payload_type(wire.parse(data)))
            assert answers[-1] == wire.REJECT

    run(main)


def test_too_many_handshakes_at_once_are_turned_away() -> None:
    async def main() -> None:
        async with (
            pair(NodeConfig(limits=NodeLimits(handshakes=2))) as (server, _, port, _, _),
            AsyncExitStack() as stack,
        ):
            peers = [await stack.enter_async_context(raw_to(port)) for _ in range(6)]
            results = await asyncio.gather(*(peer.expect(wire.VERSION) for peer in peers), return_exceptions=True)
            refused = [result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)]
            assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4
            assert server._handshakes == 2

    run(main)


def test_one_peer_leaves_handshakes_to_others() -> None:
    async def main() -> None:
        few = NodeConfig(limits=NodeLimits(handshakes_per_peer=3))
        async with pair(few) as (server, _, port, there, _), AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(raw_to(port)) for _ in range(5)]
            results = await asyncio.gather(*(peer.expect(wire.VERSION) for peer in peers), return_exceptions=True)
            refused = [result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)]
            assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
            admitted = next(peer for peer, got in zip(peers, results, strict=True) if not isinstance(got, Exception))
            admitted.call.cancel()
            await there.until(HandshakeRefused)
            async with raw_to(port) as again:
                await again.expect(wire.VERSION)
            assert server.hub.active() == []

    run(main)


def test_too_many_peers_are_turned_away_with_a_reason() -> None:
    async def main() -> None:
        async with (
            pair(NodeConfig(limits=NodeLimits(peers=1))) as parts,
            raw_to(parts[2]) as first,
            raw_to(parts[2]) as second,
        ):
            await first.shake_hands()
            await parts[3].until(HandshakeCompleted)
            await second.shake_hands()
            assert "too many peers" in (await second.expect(wire.REJECT)).reject.reason

    run(main)


def test_a_caller_nobody_can_name_is_unauthenticated() -> None:
    from punchbridge_node.transport import identify_bridge

    async def main() -> None:
        unknown = identify_bridge(lambda _: None)
        async with Node(NodeConfig()) as server, serving(server, unknown) as port, channel_to(port) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await RawPeer(channel).expect(wire.VERSION)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    run(main)


def test_closing_the_node_ends_its_peers_and_refuses_more() -> None:
    async def main() -> None:
        async with pair() as (server, client, port, _, _), channel_to(port) as channel:
            link = await client.connect(channel, at(port))
            await server.close()
            ending = await link.closed()
            assert ending.reason.value == "PEER_CLOSED"
            async with channel_to(port) as again:
                with pytest.raises(HandshakeError) as caught:
                    await client.connect(again, at(port))
                assert caught.value.failure is HandshakeFailure.CLOSED_BY_PEER

    run(main)


def test_a_cancelled_dial_leaves_nothing_behind() -> None:
    async def main() -> None:
        spoken = asyncio.Event()

        async def slow(context: Any) -> None:
            await context.read()
            spoken.set()
            await context.read()

        heard = Recorder()
        async with raw_server(slow) as port, Node(NodeConfig(), emit=heard) as node, channel_to(port) as channel:
            dial = asyncio.ensure_future(node.connect(channel, at(port)))
            await spoken.wait()
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial
            assert (await heard.until(HandshakeRefused)).failure == HandshakeFailure.CANCELLED.value
            assert node._sessions == set()
            assert node._handshakes == 0

    run(main)


def test_many_connections_leave_no_task_and_no_entry() -> None:
    async def main() -> None:
        async with pair(NodeConfig(), NodeConfig()) as (server, client, port, there, here):
            before = len(asyncio.all_tasks())
            for count in range(1, 31):
                async with channel_to(port) as channel:
                    link = await client.connect(channel, at(port))
                    await link.close()
                    await link.closed()
                    for recorder in (there, here):
                        await recorder.until(
                            PeerDisconnected, partial(lambda r, c, _: len(r.of(PeerDisconnected)) == c, recorder, count)
                        )
                for node in (server, client):
                    assert node._sessions == set()
                    assert node._handshakes == 0
                    assert node.inventory._requested == {}
                    assert len(list(node.hub)) == 1
            # The event comes from inside the server's handler: grpc's tasks around it have a few steps left. One that
            # waits for the next call is always there, and is another one after each call.
            while len(tasks := asyncio.all_tasks()) > before:
                done, _ = await asyncio.wait(
                    tasks - {asyncio.current_task()}, timeout=5, return_when=asyncio.FIRST_COMPLETED
                )
                assert done, "tasks are left over"

    run(main)
