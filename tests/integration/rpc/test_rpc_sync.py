"""Sync gRPC over two bridges on loopback: everything behaves as over TCP."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import punchbridge
from punchbridge.config import Limits, LocalLimits
from punchbridge.local.peer import TABLE, synthesized_address
from punchbridge_node._pb.protowire import p2p_pb2, p2p_pb2_grpc
from tests.support.rpc_lab import BIG, LOOPBACK, Service, eventually, method, open_pair, serving, trailing


class Pair:
    def __init__(self, server: punchbridge.Bridge, client: punchbridge.Bridge, service: Service, channel: Any) -> None:
        self.server = server
        self.client = client
        self.service = service
        self.channel = channel


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    service = Service()
    with open_pair() as (server, client), serving(server, service), client.channel(server.addrs[0]) as channel:
        yield Pair(server, client, service, channel)


@pytest.fixture
def pair(shared: Pair) -> Pair:
    shared.service.cancelled.clear()
    shared.service.started.clear()
    return shared


def test_unary(pair: Pair) -> None:
    echo = method(pair.channel, "Echo")
    assert echo(b"hello", timeout=10) == b"hello"
    assert pair.channel.info.peer_id == pair.server.peer_id
    assert pair.channel.info.path == "direct"
    assert [echo(str(n).encode(), timeout=10) for n in range(50)] == [str(n).encode() for n in range(50)]
    assert echo.future(b"later", timeout=10).result(10) == b"later"
    response, call = echo.with_call(b"x", timeout=10)
    assert (response, call.code()) == (b"x", grpc.StatusCode.OK)


def test_streams_of_every_kind(pair: Pair) -> None:
    assert method(pair.channel, "Up")(iter([bytes(1000)] * 20), timeout=10) == b"20000"
    assert [int(part) for part in method(pair.channel, "Down")(b"200", timeout=10)] == list(range(200))
    sent = [os.urandom(size) for size in (0, 1, 70_000, 5, 300_000)]
    assert list(method(pair.channel, "Chat")(iter(sent), timeout=10)) == sent


def test_chat_is_interactive(pair: Pair) -> None:
    """Each answer is read before the next request exists: nothing waits for a buffer to fill."""
    answered = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for number in range(20):
            assert answered.acquire(timeout=10)
            yield str(number).encode()

    for number, response in enumerate(method(pair.channel, "Chat")(requests(), timeout=10)):
        assert response == str(number).encode()
        answered.release()


def test_metadata_and_trailing_status(pair: Pair) -> None:
    call = method(pair.channel, "Echo").future(b"", metadata=(("x-ask", "this"),), timeout=10)
    assert call.result(10) == b""
    assert dict(call.initial_metadata())["x-initial"] == "this"
    assert dict(call.trailing_metadata())["x-trailing-bin"] == b"\x00\xff"
    with pytest.raises(grpc.RpcError) as caught:
        method(pair.channel, "Fail")(b"reason", timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "no: reason"
    assert trailing(caught.value)["x-why"] == "because"
    with pytest.raises(grpc.RpcError) as caught:
        method(pair.channel, "Missing")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_cancel_reaches_the_handler(pair: Pair) -> None:
    call = method(pair.channel, "Hang").future(b"", timeout=20)
    assert pair.service.started.wait(10)
    assert call.cancel()
    assert pair.service.cancelled.wait(10)
    assert call.cancelled()
    stream = method(pair.channel, "Wait")(b"", timeout=20)
    pair.service.cancelled.clear()
    assert next(stream) == b"first"
    stream.cancel()
    assert pair.service.cancelled.wait(10)
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_deadline_reaches_the_handler(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        method(pair.channel, "Hang")(b"", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert pair.service.cancelled.wait(10)


def test_64_mib_both_ways(pair: Pair) -> None:
    message = os.urandom(1 << 20) * 64
    assert method(pair.channel, "Echo")(message, timeout=50) == message


def test_the_handler_knows_the_peer(pair: Pair) -> None:
    peer_id, path, multiaddr, protocol, address = method(pair.channel, "Who")(b"", timeout=10).decode().split("\n")
    assert peer_id == pair.client.peer_id
    assert path == "direct"
    assert multiaddr.endswith(f"/p2p/{peer_id}")
    assert multiaddr.startswith("/ip4/127.0.0.1/tcp/")
    assert protocol == punchbridge.GRPC_PROTOCOL
    assert address == str(synthesized_address(peer_id))
    # The connection leaves from the listening port, so the peer can be dialled at the address seen.
    assert multiaddr in pair.client.addrs


def test_channels_to_one_target_share_a_stream_unless_fresh(pair: Pair) -> None:
    def streams() -> int:
        return len(TABLE)

    before = streams()
    with pair.client.channel(pair.server.addrs[0]) as second:
        assert method(second, "Echo")(b"2", timeout=10) == b"2"
        assert streams() == before
    with pair.client.channel(pair.server.addrs[0], fresh=True) as third:
        assert method(third, "Echo")(b"3", timeout=10) == b"3"
        assert streams() == before + 1
    eventually(lambda: streams() == before)
    assert method(pair.channel, "Echo")(b"1", timeout=10) == b"1"


def test_target_by_peer_id_when_connected(pair: Pair) -> None:
    method(pair.channel, "Echo")(b"", timeout=10)
    with pair.client.channel(pair.server.peer_id) as channel:
        assert method(channel, "Echo")(b"x", timeout=10) == b"x"


def test_generated_servicer_and_stub_work_unmodified() -> None:
    class Servicer(p2p_pb2_grpc.P2PServicer):
        def MessageStream(
            self, request_iterator: Iterator[p2p_pb2.KaspadMessage], context: grpc.ServicerContext
        ) -> object:
            for message in request_iterator:
                yield p2p_pb2.KaspadMessage(pong=p2p_pb2.PongMessage(nonce=message.ping.nonce))

    with open_pair() as (listener, dialer):
        from concurrent.futures import ThreadPoolExecutor

        server = grpc.server(ThreadPoolExecutor(2), compression=grpc.Compression.Gzip)
        p2p_pb2_grpc.add_P2PServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
        listener.serve(server, protocol="/kaspa/p2p/1")
        server.start()
        with dialer.channel(listener.addrs[0], protocol="/kaspa/p2p/1") as channel:
            pings = (p2p_pb2.KaspadMessage(ping=p2p_pb2.PingMessage(nonce=n)) for n in range(5))
            stub = p2p_pb2_grpc.P2PStub(channel)  # type: ignore[no-untyped-call]
            answers = stub.MessageStream(pings, timeout=10)
            assert [answer.pong.nonce for answer in answers] == list(range(5))
        server.stop(None).wait()


def test_server_stop_ends_calls_and_a_restarted_one_is_found_again() -> None:
    with open_pair() as (listener, dialer):
        service = Service()
        with serving(listener, service):
            channel = dialer.channel(listener.addrs[0])
            stream = method(channel, "Wait")(b"", timeout=20)
            assert next(stream) == b"first"
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        listener.unserve()
        with serving(listener, service):
            assert method(channel, "Echo")(b"again", timeout=20, wait_for_ready=True) == b"again"
        channel.close()


def test_a_protocol_is_served_once() -> None:
    with open_pair() as (listener, _), serving(listener, Service()):
        second = grpc.server(None, options=BIG)  # type: ignore[arg-type]
        with pytest.raises(punchbridge.LocalError, match="handler"):
            listener.serve(second)


def test_closing_a_bridge_ends_its_calls_and_leaves_nothing() -> None:
    before = open_files()
    with open_pair() as (listener, dialer):
        directory = dialer._control.gateway.directory.path
        assert os.path.isdir(directory)
        with serving(listener, Service()):
            channel = dialer.channel(listener.addrs[0])
            stream = method(channel, "Wait")(b"", timeout=20)
            assert next(stream) == b"first"
            dialer.close()
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not os.path.exists(directory)
            for call in (lambda: dialer.addrs, dialer.connections, lambda: dialer.channel(listener.addrs[0])):
                with pytest.raises(punchbridge.SwarmStopped):
                    call()
            channel.close()
    eventually(lambda: open_files() - before <= set())


def open_files() -> set[str]:
    """Names of our sockets that this process still holds."""
    with open("/proc/net/unix") as table:
        return {line.split()[-1] for line in table if "punchbridge-" in line}


def test_channels_that_are_gone_leave_no_listener_behind() -> None:
    """A program that meets many peers in its life must not run out of places for channels."""
    peer = punchbridge.Identity.generate()
    few = Limits(local=LocalLimits(endpoints=30))
    with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, limits=few) as b:
        sockets = Path(b._control.gateway.directory.path)
        kept = method(b.channel(f"/ip4/127.0.0.1/tcp/1/p2p/{peer}"), "Echo")
        for number in range(80):
            b.channel(f"/ip4/127.0.0.1/tcp/{2 + number}/p2p/{peer}").close()
        assert len(list(sockets.iterdir())) < 10
        with pytest.raises(grpc.RpcError, match="UNREACHABLE"):
            kept(b"", timeout=10)
        held = [b.channel(f"/ip4/127.0.0.2/tcp/{2 + number}/p2p/{peer}") for number in range(20)]
        assert len(list(sockets.iterdir())) > 20
        assert len(held) == 20
        with pytest.raises(punchbridge.LimitExceeded, match="30 different targets"):
            held += [b.channel(f"/ip4/127.0.0.3/tcp/{2 + number}/p2p/{peer}") for number in range(30)]
