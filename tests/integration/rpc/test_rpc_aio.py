"""grpc.aio over two bridges: server and channel in one event loop, the networks in their own threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest

import punchbridge
from tests.support.rpc_lab import BIG, AioService, Service, details, method, open_pair, serving, trailing


@asynccontextmanager
async def aio_serving(b: punchbridge.Bridge, service: Service) -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server(handlers=(service,), options=BIG)
    b.serve(server)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(None)


@dataclass
class Lab:
    dialer: punchbridge.Bridge
    service: AioService
    channel: grpc.aio.Channel


def run(test: Callable[[Lab], Awaitable[None]]) -> None:
    """Runs a test with an aio server and channel over a fresh pair of bridges."""

    async def main() -> None:
        service = AioService()
        with open_pair() as (listener, dialer):
            async with aio_serving(listener, service), dialer.aio_channel(listener.addrs[0]) as channel:
                await asyncio.wait_for(test(Lab(dialer, service, channel)), 50)

    asyncio.run(main())


def test_every_kind_of_call() -> None:
    async def test(lab: Lab) -> None:
        channel = lab.channel
        assert await method(channel, "Echo")(b"hello") == b"hello"
        assert await method(channel, "Up")(iter([bytes(1000)] * 20)) == b"20000"
        assert [int(part) async for part in method(channel, "Down")(b"100")] == list(range(100))
        chat = method(channel, "Chat")()
        for number in range(20):
            await chat.write(str(number).encode())
            assert await chat.read() == str(number).encode()
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF  # type: ignore[attr-defined]  # The stubs lack it.
        assert await chat.code() is grpc.StatusCode.OK
        sent = [os.urandom(size) for size in (0, 1, 70_000, 5, 300_000)]
        assert [part async for part in method(channel, "Chat")(iter(sent))] == sent

    run(test)


def test_metadata_status_and_peer() -> None:
    async def test(lab: Lab) -> None:
        channel = lab.channel
        call = method(channel, "Echo")(b"", metadata=(("x-ask", "this"),))
        assert isinstance(call, grpc.aio.UnaryUnaryCall)
        assert await call == b""
        assert (await call.initial_metadata())["x-initial"] == "this"
        assert (await call.trailing_metadata())["x-trailing-bin"] == b"\x00\xff"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "Fail")(b"reason")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "no: reason"
        assert trailing(caught.value)["x-why"] == "because"
        who = (await method(channel, "Who")(b"")).decode().split("\n")
        assert who[:2] == [lab.dialer.peer_id, "direct"]

    run(test)


def test_cancel_and_deadline_reach_the_handler() -> None:
    async def test(lab: Lab) -> None:
        channel = lab.channel
        stream = method(channel, "Wait")(b"")
        assert await stream.read() == b"first"
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.read()
        assert await asyncio.to_thread(lab.service.cancelled.wait, 10)
        lab.service.cancelled.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "Hang")(b"", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await asyncio.to_thread(lab.service.cancelled.wait, 10)

    run(test)


def test_64_mib() -> None:
    async def test(lab: Lab) -> None:
        channel = lab.channel
        message = os.urandom(1 << 20) * 64
        assert await method(channel, "Echo")(message) == message

    run(test)


def test_dial_failure_is_told_by_every_kind_of_call() -> None:
    async def main() -> None:
        nowhere = f"/ip4/127.0.0.1/tcp/1/p2p/{punchbridge.Identity.generate()}"
        with open_pair() as (_, dialer):
            async with dialer.aio_channel(nowhere) as channel:

                async def read_all() -> None:
                    async for _ in method(channel, "Down")(b"1"):
                        pass

                calls = (
                    lambda: method(channel, "Echo")(b""),
                    lambda: method(channel, "Up")(iter([b""])),
                    lambda: method(channel, "Down")(b"1").read(),
                    lambda: method(channel, "Chat")().read(),
                    read_all,
                )
                for call in calls:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call()
                    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                    assert details(caught.value).startswith("UNREACHABLE: ")
                    assert "127.0.0.1" in details(caught.value)
                    assert trailing(caught.value)["punchbridge-error"] == "UNREACHABLE"
                    assert isinstance(caught.value.__cause__, punchbridge.Unreachable)
                call = method(channel, "Echo")(b"")
                assert await call.code() is grpc.StatusCode.UNAVAILABLE
                assert (await call.details()).startswith("UNREACHABLE: ")

    asyncio.run(main())


def test_an_aio_client_reaches_a_sync_server_and_controls_do_not_block() -> None:
    async def main() -> None:
        with open_pair() as (listener, dialer), serving(listener, Service()):
            info = await dialer.aio_connect(listener.addrs[0])
            assert info.path == "direct"
            assert (await dialer.aio_wait_direct(listener.peer_id)).id == info.id
            async with dialer.aio_channel(listener.peer_id) as channel:
                await channel.channel_ready()
                assert await method(channel, "Echo")(b"x") == b"x"
            with pytest.raises(punchbridge.Unreachable):
                await dialer.aio_connect(f"/ip4/127.0.0.1/tcp/1/p2p/{punchbridge.Identity.generate()}")

    asyncio.run(main())
