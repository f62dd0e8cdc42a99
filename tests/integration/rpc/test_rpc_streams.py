"""The trio form: streams dialled and accepted, expose and forward."""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
import trio.testing

import punchbridge
from punchbridge.config import Limits, LocalLimits
from punchbridge.errors import ConfigError, PortInUse
from punchbridge.local import expose, forward
from punchbridge.local.gateway import EndpointKey, open_gateway
from punchbridge.local.places import Place
from punchbridge.local.target import parse_target
from punchbridge.session.around import Around
from punchbridge.session.service import SessionService
from tests.support.rpc_lab import BIG, LOOPBACK, Service, method

ECHO = "/test/echo/1"


@asynccontextmanager
async def trio_pair(**local: Any) -> AsyncIterator[tuple[punchbridge.TrioBridge, punchbridge.TrioBridge]]:
    limits = Limits(local=LocalLimits(**local))
    async with (
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, limits=limits) as server,
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, limits=limits) as client,
    ):
        yield server, client


async def test_dial_and_accept() -> None:
    async with trio_pair() as (server, client), server.accept_stream(ECHO) as incoming:
        stream = await client.dial_stream(server.addrs[0], ECHO)
        await stream.send_all(b"over there")
        taken = await incoming.__anext__()
        assert taken.info.peer_id == client.peer_id
        assert stream.info.peer_id == server.peer_id
        assert stream.info.path == taken.info.path == "direct"
        assert await taken.receive_some() == b"over there"
        await stream.send_eof()
        assert await taken.receive_some() == b""
        await taken.send_all(b"and back")
        await taken.aclose()
        assert await stream.receive_some() == b"and back"
        assert await stream.receive_some() == b""
        await stream.aclose()


async def test_async_for_alone() -> None:
    async with trio_pair() as (server, client), trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            acceptor = server.accept_stream(ECHO)
            async with acceptor:
                task_status.started()
                async for stream in acceptor:
                    async with stream:
                        await stream.send_all(await stream.receive_some())

        await nursery.start(serve)
        for word in (b"one", b"two"):
            async with await client.dial_stream(server.addrs[0], ECHO) as stream:
                await stream.send_all(word)
                assert await stream.receive_some() == word
        nursery.cancel_scope.cancel()


async def test_the_stream_is_a_trio_stream() -> None:
    """trio's own suite for streams that can be half-closed."""
    async with trio_pair() as (server, client), server.accept_stream(ECHO) as incoming:

        async def make() -> tuple[punchbridge.BridgeStream, punchbridge.BridgeStream]:
            dialled = await client.dial_stream(server.addrs[0], ECHO)
            return dialled, await incoming.__anext__()

        await trio.testing.check_half_closeable_stream(make, None)


async def test_leaving_the_block_resets_what_nobody_took() -> None:
    async with trio_pair() as (server, client):
        async with server.accept_stream(ECHO):
            waiting = await client.dial_stream(server.addrs[0], ECHO)
        with pytest.raises(punchbridge.StreamReset):
            await waiting.receive_some()
        with pytest.raises(punchbridge.NegotiationFailed):
            await client.dial_stream(server.addrs[0], ECHO)
        async with server.accept_stream(ECHO) as incoming:
            stream = await client.dial_stream(server.addrs[0], ECHO)
            (await incoming.__anext__()).reset()
            with pytest.raises(punchbridge.StreamReset):
                await stream.receive_some()


async def test_two_tasks_may_take_from_one_acceptor() -> None:
    async with trio_pair() as (server, client):
        incoming = server.accept_stream(ECHO)
        taken: list[bytes] = []

        async def take_one() -> None:
            async with await incoming.__anext__() as stream:
                taken.append(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_one)
            nursery.start_soon(take_one)
            await trio.testing.wait_all_tasks_blocked()
            for word in (b"one", b"two"):
                async with await client.dial_stream(server.addrs[0], ECHO) as stream:
                    await stream.send_all(word)
        assert sorted(taken) == [b"one", b"two"]


async def test_an_acceptor_that_was_left_takes_no_more() -> None:
    async with trio_pair() as (server, client):
        async with server.accept_stream(ECHO) as incoming:
            pass
        assert [stream async for stream in incoming] == []
        with pytest.raises(punchbridge.NegotiationFailed):
            await client.dial_stream(server.addrs[0], ECHO)
        async with incoming:
            pass
        async with server.accept_stream(ECHO):
            await (await client.dial_stream(server.addrs[0], ECHO)).aclose()


@pytest.mark.parametrize("told", [2, None])
@pytest.mark.parametrize("sessions", [True, False])
async def test_an_acceptor_keeps_its_limits(sessions: bool, told: int | None) -> None:
    limits = Limits(local=LocalLimits(served_streams_per_peer=2 if told is None else 1))
    async with (
        punchbridge.open_trio(
            listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, sessions=sessions, limits=limits
        ) as server,
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as client,
        server.accept_stream(ECHO, max_per_peer=told) as incoming,
    ):
        first, _second = [await client.dial_stream(server.addrs[0], ECHO) for _ in range(2)]
        with pytest.raises((punchbridge.LimitExceeded, punchbridge.StreamReset)):
            await (await client.dial_stream(server.addrs[0], ECHO)).receive_some()
        async with await incoming.__anext__() as taken:
            await taken.send_all(b"those that stand go on")
        assert await first.receive_some() == b"those that stand go on"
        await first.aclose()
        with trio.fail_after(10):
            while True:
                try:
                    return await (await client.dial_stream(server.addrs[0], ECHO)).aclose()
                except (punchbridge.LimitExceeded, punchbridge.StreamReset):
                    await trio.testing.wait_all_tasks_blocked()


async def test_a_crowd_behind_one_forward() -> None:
    """As many as one peer may have are carried; one more is told what to do, and the others go on."""
    told: list[punchbridge.events.ErrorEvent] = []
    async with trio_pair(served_streams_per_peer=16) as (server, client), trio.open_nursery() as nursery:
        client.host.swarm.events.subscribe(
            lambda event: told.append(event) if isinstance(event, punchbridge.events.ErrorEvent) else None
        )

        async def echo(stream: trio.SocketStream) -> None:
            async for data in stream:
                await stream.send_all(data)

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        await nursery.start(expose.run, server.host, f"127.0.0.1:{listener.socket.getsockname()[1]}")
        bound = await nursery.start(forward.run, client.host, server.addrs[0], "127.0.0.1:0")
        crowd = [await connected(bound) for _ in range(16)]
        for number, one in enumerate(crowd):
            await one.send_all(b"%d" % number)
            assert await one.receive_some() == b"%d" % number
        async with await connected(bound) as too_many:
            with contextlib.suppress(trio.BrokenResourceError):
                assert await too_many.receive_some() == b""
        assert [one.code for one in told] == ["LIMIT"]
        assert "a second bridge" in told[0].message
        await crowd[0].send_all(b"still here")
        assert await crowd[0].receive_some() == b"still here"
        nursery.cancel_scope.cancel()
    for one in crowd:
        await one.aclose()


async def test_a_connection_that_is_cut_as_it_stands_is_told_all_the_same() -> None:
    async with trio_pair() as (server, client):
        swarm = client.host.swarm

        def cut(event: punchbridge.Event) -> None:
            if isinstance(event, punchbridge.events.ConnectionOpened):
                for one in swarm.connections():
                    one.abort("CUT")

        swarm.events.subscribe(cut)
        for _ in range(5):
            try:
                info = await client.connect(server.addrs[0])
            except punchbridge.BridgeError:
                continue
            assert info.peer_id == server.peer_id


async def connected(place: Place) -> trio.SocketStream:
    if place.path is not None:
        return await trio.open_unix_socket(place.path)
    return await trio.open_tcp_stream(place.host, place.port)


async def test_a_fault_of_ours_costs_one_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    """A session service that does not run stands for any defect below: what it raises is no BridgeError."""
    async with trio_pair() as (server, client), server.accept_stream(ECHO) as incoming:
        broken = replace(client.host, sessions=SessionService(Around(client.host.swarm)))
        async with open_gateway(broken) as gateway, trio.open_nursery() as nursery:
            forwarding = partial(forward.run, protocol=ECHO)
            bound = await nursery.start(forwarding, broken, server.addrs[0], "127.0.0.1:0")
            channel = gateway.endpoint(EndpointKey(parse_target(server.addrs[0]), ECHO, "any", 10.0))
            places = (bound, Place(path=channel.name))
            for place in places:
                async with await connected(place) as local:
                    assert await local.receive_some() == b""
            object.__setattr__(broken, "sessions", client.host.sessions)
            for place in places:
                async with await connected(place) as local:
                    await local.send_all(b"now")
                    async with await incoming.__anext__() as stream:
                        assert await stream.receive_some() == b"now"
            nursery.cancel_scope.cancel()
    assert "the session service does not run" in caplog.text


async def accept(listener: socket.socket) -> trio.SocketStream:
    accepted, _ = await trio.socket.from_stdlib_socket(listener).accept()
    return trio.SocketStream(accepted)


@asynccontextmanager
async def exposed_and_forwarded(place: str, bind: str) -> AsyncIterator[Place]:
    """`place` behind one bridge, reached at the place that the other bridge binds."""
    async with trio_pair() as (server, client), trio.open_nursery() as nursery:
        await nursery.start(expose.run, server.host, place)
        yield await nursery.start(forward.run, client.host, server.addrs[0], bind)
        nursery.cancel_scope.cancel()


async def test_expose_and_forward_carry_an_unmodified_server_and_client(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[Service()], options=BIG)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        async with exposed_and_forwarded(f"localhost:{port}", "127.0.0.1:0") as bound:
            assert bound.port != 0

            def use() -> None:
                with grpc.insecure_channel(str(bound), options=BIG) as channel:
                    assert method(channel, "Echo")(bytes(1 << 23), timeout=20) == bytes(1 << 23)
                    assert list(method(channel, "Down")(b"3", timeout=10)) == [b"0", b"1", b"2"]

            await trio.to_thread.run_sync(use)
        await trio.to_thread.run_sync(server.stop(None).wait)


async def test_expose_and_forward_over_unix_sockets(tmp_path: Path) -> None:
    inner, outer = tmp_path / "in", tmp_path / "out"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inner))
        listener.listen()
        async with exposed_and_forwarded(f"unix:{inner}", f"unix:{outer}") as bound:
            assert bound == Place(path=str(outer))
            assert stat.S_IMODE(outer.stat().st_mode) == 0o600
            client = await trio.open_unix_socket(str(outer))
            await client.send_all(b"hello")
            await client.send_eof()
            async with await accept(listener) as accepted:
                assert await accepted.receive_some() == b"hello"
                assert await accepted.receive_some() == b""
                await accepted.send_all(b"bye")
            assert await client.receive_some() == b"bye"
            assert await client.receive_some() == b""
            await client.aclose()
        assert not outer.exists()


async def test_nothing_behind_resets_and_the_next_one_tries_again() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        async with exposed_and_forwarded(f"127.0.0.1:{port}", "127.0.0.1:0") as bound:
            client = await trio.open_tcp_stream("127.0.0.1", bound.port)
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
            await client.aclose()
            held.listen()
            client = await trio.open_tcp_stream("127.0.0.1", bound.port)
            await client.send_all(b"now")
            async with await accept(held) as accepted:
                assert await accepted.receive_some() == b"now"
            await client.aclose()


async def test_a_forward_to_nobody_closes_and_tells() -> None:
    seen: list[str] = []
    nowhere = f"/ip4/127.0.0.1/tcp/1/p2p/{punchbridge.Identity.generate()}"

    def note(event: punchbridge.Event) -> None:
        if isinstance(event, punchbridge.events.ErrorEvent):
            seen.append(event.code)

    async with (
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, events=note) as b,
        trio.open_nursery() as nursery,
    ):
        bound = await nursery.start(forward.run, b.host, nowhere, "127.0.0.1:0")
        client = await trio.open_tcp_stream("127.0.0.1", bound.port)
        assert await client.receive_some() == b""
        await client.aclose()
        assert seen == ["UNREACHABLE"]
        nursery.cancel_scope.cancel()


async def test_a_forward_to_a_peer_without_the_protocol_tells() -> None:
    told: list[str] = []
    heard = trio.Event()

    def note(event: punchbridge.Event) -> None:
        if isinstance(event, punchbridge.events.ErrorEvent):
            told.append(event.code)
            heard.set()

    async with trio_pair(served_streams_per_peer=16) as (server, client), trio.open_nursery() as nursery:
        client.host.swarm.events.subscribe(note)
        bound = await nursery.start(forward.run, client.host, server.addrs[0], "127.0.0.1:0")
        connection = await trio.open_tcp_stream("127.0.0.1", bound.port)
        with pytest.raises(trio.BrokenResourceError):
            await connection.receive_some()
        await connection.aclose()
        await heard.wait()
        assert told == ["UNSUPPORTED"]
        nursery.cancel_scope.cancel()


async def test_forward_says_why_it_cannot_listen(tmp_path: Path) -> None:
    target = f"/p2p/{punchbridge.Identity.generate()}"
    live = tmp_path / "live"
    async with punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as b:
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket(socket.AF_UNIX) as other:
            other.bind(str(live))
            other.listen()
            with pytest.raises(PortInUse):
                await forward.run(b.host, target, f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(PortInUse):
                await forward.run(b.host, target, f"unix:{live}")
        with pytest.raises(ConfigError):
            await forward.run(b.host, target, f"unix:{tmp_path}/no/such/folder")
        with pytest.raises(ConfigError):
            await forward.run(b.host, target, "50051")
        with pytest.raises(ConfigError, match="names no port"):
            await expose.run(b.host, "localhost:0")
        # A socket that a killed program left behind is in nobody's way.
        assert live.is_socket()
        async with trio.open_nursery() as nursery:
            await nursery.start(forward.run, b.host, target, f"unix:{live}")
            nursery.cancel_scope.cancel()
        assert not live.exists()


@pytest.mark.parametrize("told", [1, None])
async def test_forward_bounds_its_connections(told: int | None) -> None:
    async with (
        trio_pair(forwarded=1 if told is None else 2) as (server, client),
        server.accept_stream(ECHO) as incoming,
        trio.open_nursery() as nursery,
    ):
        run = partial(forward.run, protocol=ECHO, max_connections=told)
        bound = await nursery.start(run, client.host, server.addrs[0], "127.0.0.1:0")
        first = await trio.open_tcp_stream("127.0.0.1", bound.port)
        second = await trio.open_tcp_stream("127.0.0.1", bound.port)
        await first.send_all(b"1")
        await second.send_all(b"2")
        taken = await incoming.__anext__()
        assert await taken.receive_some() == b"1"
        with trio.move_on_after(0.1) as waited:
            await incoming.__anext__()
        assert waited.cancelled_caught, "the second one waits in the backlog"
        await first.aclose()
        await taken.aclose()
        other = await incoming.__anext__()
        assert await other.receive_some() == b"2"
        await second.aclose()
        await other.aclose()
        nursery.cancel_scope.cancel()
