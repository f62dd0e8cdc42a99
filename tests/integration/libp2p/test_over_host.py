"""gRPC over the streams of stock py-libp2p hosts: with each other, and with bridges of ours on either side."""

from __future__ import annotations

import gc
import queue
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import trio
from libp2p.peer.peerinfo import PeerInfo

import punchbridge
from punchbridge.addresses import parse, with_peer
from punchbridge.config import Limits, SessionLimits
from punchbridge.events import Event, SessionSwitched
from punchbridge.libp2p import HostBridge, open_over
from tests.support.rpc_lab import Service, method
from tests.support.stock_host import Stock, stock_host
from tests.support.swarms import LOOPBACK


async def leave(stock: Stock) -> None:
    """A stock host that is hung up on leaves its socket open."""
    for peer in tuple(stock.host.get_network().connections):
        await stock.host.disconnect(peer)


pytestmark = pytest.mark.filterwarnings(
    # py-libp2p leaves the socket of a connection open that the other side has closed.
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Such sockets are collected here, and not in the middle of another test."""
    yield
    gc.collect()


@asynccontextmanager
async def over_host(events: Any = None) -> AsyncIterator[tuple[Stock, HostBridge]]:
    async with (
        stock_host() as stock,
        open_over(stock.host, allow=punchbridge.ANYONE, allow_private=True, events=events) as bridge,
    ):
        yield stock, bridge
        await leave(stock)


@asynccontextmanager
async def served(serve: Callable[[grpc.Server], Any], service: Service) -> AsyncIterator[None]:
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((service,))
    await serve(server)
    server.start()
    try:
        yield
    finally:
        await trio.to_thread.run_sync(server.stop(None).wait)  # noqa: ASYNC102


async def in_thread(work: Callable[[], Any]) -> Any:
    with trio.fail_after(30):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def address(stock: Stock) -> str:
    return str(with_peer(parse(str(stock.addr)), stock.peer))


def exercise(channel: Any, server_peer: str) -> None:
    assert method(channel, "Echo")(b"hello", timeout=20) == b"hello"
    sent = [bytes([number % 256]) * size for number, size in enumerate((0, 1, 70_000, 5, 300_000))]
    assert list(method(channel, "Chat")(iter(sent), timeout=20)) == sent
    assert method(channel, "Up")(iter([bytes(100_000)] * 20), timeout=20) == b"2000000"
    assert channel.info.peer_id == server_peer


async def test_both_ends_over_stock_hosts() -> None:
    service = Service()
    async with (
        over_host() as (server_host, server),
        over_host() as (client_host, client),
        served(server.serve, service),
    ):
        with client.channel(address(server_host)) as channel:
            await in_thread(lambda: exercise(channel, server.peer_id))
            who = await in_thread(lambda: method(channel, "Who")(b"", timeout=20))
        assert who.split(b"\n")[:2] == [str(client_host.peer).encode(), b"direct"]
        assert server.sessions.count == 1


async def test_our_bridge_calls_a_server_over_a_stock_host() -> None:
    async with (
        over_host() as (host, server),
        served(server.serve, Service()),
        punchbridge.open_trio(listen=(), allow_private=True, allow=punchbridge.ANYONE, punch=False) as ours,
    ):
        async with await ours.dial_stream(address(host), punchbridge.GRPC_PROTOCOL) as stream:
            await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
            with trio.fail_after(20):
                settings = await stream.receive_some()
            assert settings[3] == 4  # the server's SETTINGS frame
        assert server.sessions.count == 1
        await leave(host)


async def test_a_client_over_a_stock_host_calls_our_server() -> None:
    with punchbridge.open(listen=[str(LOOPBACK)], allow_private=True, allow=punchbridge.ANYONE, punch=False) as ours:

        async def serve(server: grpc.Server) -> None:
            await trio.to_thread.run_sync(ours.serve, server)

        async with over_host() as (_, client), served(serve, Service()):
            with client.channel(ours.addrs[0]) as channel:
                await in_thread(lambda: exercise(channel, ours.peer_id))


async def test_a_session_goes_on_when_the_hosts_connection_is_cut() -> None:
    seen: list[Event] = []
    async with (
        over_host() as (server_host, server),
        over_host(seen.append) as (client_host, client),
        served(server.serve, Service()),
    ):
        with client.channel(address(server_host)) as channel:
            chat: Any = None
            feed: Any = None

            def begin() -> bytes:
                nonlocal chat, feed
                feed = queue.Queue()
                chat = method(channel, "Chat")(iter(feed.get, None), timeout=60)
                feed.put(b"before")
                return next(chat)  # type: ignore[no-any-return]

            def go_on() -> bytes:
                feed.put(b"after")
                answer = next(chat)
                feed.put(None)
                return answer  # type: ignore[no-any-return]

            assert await in_thread(begin) == b"before"
            await client_host.host.disconnect(server_host.host.get_id())
            assert await in_thread(go_on) == b"after"
    assert any(isinstance(event, SessionSwitched) for event in seen)


async def test_plain_streams_and_a_peer_that_serves_nothing() -> None:
    async with over_host() as (host, server), over_host() as (_, client):
        async with server.accept_stream("/test/pipe/1.0.0") as streams, trio.open_nursery() as nursery:

            async def echo() -> None:
                async for stream in streams:
                    async with stream:
                        async for data in stream:
                            await stream.send_all(data)

            nursery.start_soon(echo)
            with trio.fail_after(30):
                async with await client.dial_stream(address(host), "/test/pipe/1.0.0") as stream:
                    await stream.send_all(b"through")
                    assert await stream.receive_some() == b"through"
            nursery.cancel_scope.cancel()
        with trio.fail_after(30), pytest.raises(punchbridge.NegotiationFailed):
            await client.dial_stream(address(host), "/test/nothing/1.0.0")


async def test_the_bounds_that_an_application_hands_over_hold() -> None:
    limits = Limits(sessions=SessionLimits(total=1))
    async with over_host() as (host, server), stock_host() as stock:
        async with (
            open_over(stock.host, allow_private=True, limits=limits) as client,
            server.accept_stream("/test/pipe/1.0.0"),
        ):
            with trio.fail_after(30):
                async with await client.dial_stream(address(host), "/test/pipe/1.0.0"):
                    with pytest.raises(punchbridge.LimitExceeded, match="1 sessions are open"):
                        await client.dial_stream(address(host), "/test/pipe/1.0.0")
        await leave(stock)


async def test_nothing_of_the_bridge_stays_with_the_host() -> None:
    async with stock_host() as stock:
        before = set(stock.host.get_mux().get_protocols())
        async with open_over(stock.host) as bridge, bridge.accept_stream("/test/pipe/1.0.0"):
            assert "/punchbridge/session/1.0.0" in stock.host.get_mux().get_protocols()
        assert set(stock.host.get_mux().get_protocols()) == before
        assert not [one for one in stock.host.get_network().notifees if "punchbridge" in type(one).__module__]


def test_without_py_libp2p_the_import_says_what_to_install() -> None:
    code = "import importlib.util as u; u.find_spec = lambda name, *_: None; import punchbridge.libp2p"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "pip install 'punchbridge[libp2p]'" in done.stderr


async def drain(stream: Any) -> None:
    async with stream:
        try:
            async for _ in stream:
                pass
        except trio.BrokenResourceError:
            pass


async def drain_all(streams: Any) -> None:
    async with trio.open_nursery() as nursery:
        async for stream in streams:
            nursery.start_soon(drain, stream)


async def test_a_stream_reset_in_the_middle_of_a_write_leaves_the_connection_whole() -> None:
    sink = "/test/sink/1.0.0"
    async with (
        over_host() as (host, server),
        over_host() as (client_host, client),
        server.accept_stream(sink) as streams,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(drain_all, streams)
        await client_host.host.connect(PeerInfo(host.host.get_id(), [host.addr]))
        (connection,) = client._host.swarm.connections(host.peer)
        with trio.fail_after(50):
            for steps in range(40):
                stream = await connection.open_stream([sink])
                assert stream.send_nowait(bytes(1000))
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                stream.abort()
                await connection.ping()
        assert not connection.closing
        nursery.cancel_scope.cancel()
