"""Call credentials on channels of the bridge: tokens, metadata plugins and both, for each call and for a channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import punchbridge
from punchbridge.local.peer import TABLE
from tests.support.rpc_lab import AioService, Service, details, eventually, method, open_pair, serving

TOKEN = "authorization=Bearer token"


class Stamp(grpc.AuthMetadataPlugin):
    """A metadata plugin: tells the server which service and method it was asked for."""

    def __call__(self, context: Any, callback: Callable[..., None]) -> None:
        callback((("x-for", f"{context.service_url} {context.method_name}"),), None)


class Broken(grpc.AuthMetadataPlugin):
    def __call__(self, context: Any, callback: Callable[..., None]) -> None:
        callback((), ValueError("no token to be had"))


def token() -> grpc.CallCredentials:
    return grpc.access_token_call_credentials("token")


def stamp() -> grpc.CallCredentials:
    return grpc.metadata_call_credentials(Stamp())


def stamped(b: punchbridge.Bridge) -> str:
    # Local credentials have no scheme: what stands before the authority is empty.
    return f"x-for=://{b.peer_id}/test.Service Metadata"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[punchbridge.Bridge, punchbridge.Bridge]]:
    """(server, client), the server a plain one."""
    with open_pair() as (listener, dialer), serving(listener, Service(), interceptors=(punchbridge.guard(),)):
        yield listener, dialer


Pair = tuple[punchbridge.Bridge, punchbridge.Bridge]


def test_of_one_call(pair: Pair) -> None:
    listener, dialer = pair
    both = grpc.composite_call_credentials(token(), stamp())
    with dialer.channel(listener.addrs[0]) as channel:
        ask = method(channel, "Metadata")
        assert ask(b"", timeout=20) == b""
        assert ask(b"", timeout=20, credentials=token()).decode() == TOKEN
        assert ask(b"", timeout=20, credentials=stamp()).decode() == stamped(listener)
        assert ask(b"", timeout=20, credentials=both).decode().split("\n") == [TOKEN, stamped(listener)]
        assert ask.with_call(b"", timeout=20, credentials=token())[0].decode() == TOKEN
        assert ask.future(b"", timeout=20, credentials=token()).result().decode() == TOKEN


def test_of_every_kind_of_call(pair: Pair) -> None:
    listener, dialer = pair
    with dialer.channel(listener.addrs[0]) as channel:
        assert method(channel, "Up")(iter([b"12", b"3"]), timeout=20, credentials=token()) == b"3"
        assert list(method(channel, "Down")(b"3", timeout=20, credentials=token())) == [b"0", b"1", b"2"]
        assert list(method(channel, "Chat")(iter([b"a", b"b"]), timeout=20, credentials=token())) == [b"a", b"b"]


def test_of_a_channel_and_of_a_call_on_it(pair: Pair) -> None:
    listener, dialer = pair
    with dialer.channel(listener.addrs[0], call_credentials=token()) as channel:
        assert method(channel, "Metadata")(b"", timeout=20).decode() == TOKEN
        told = method(channel, "Metadata")(b"", timeout=20, credentials=stamp()).decode()
        assert told.split("\n") == [TOKEN, stamped(listener)]


def test_a_plugin_that_fails_ends_the_call_and_not_the_channel(pair: Pair) -> None:
    listener, dialer = pair
    with dialer.channel(listener.addrs[0]) as channel:
        ask = method(channel, "Metadata")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=20, credentials=grpc.metadata_call_credentials(Broken()))
        assert "no token to be had" in details(caught.value)
        assert ask(b"", timeout=20, credentials=token()).decode() == TOKEN


def test_calls_with_credentials_take_one_stream_of_their_own(pair: Pair) -> None:
    listener, dialer = pair
    eventually(lambda: len(TABLE) == 0)
    with dialer.channel(listener.addrs[0]) as first, dialer.channel(listener.addrs[0]) as second:
        method(first, "Echo")(b"", timeout=20)
        method(second, "Echo")(b"", timeout=20)
        assert len(TABLE) == 1
        for _ in range(3):
            method(second, "Echo")(b"", timeout=20, credentials=token())
            method(second, "Metadata")(b"", 20, None, token())
        assert len(TABLE) == 2
        with dialer.channel(listener.addrs[0], call_credentials=token()) as third:
            method(third, "Echo")(b"", timeout=20)
            method(third, "Echo")(b"", timeout=20, credentials=stamp())
            assert len(TABLE) == 3
    eventually(lambda: len(TABLE) == 0)


def test_a_closed_channel_takes_no_call_with_credentials(pair: Pair) -> None:
    listener, dialer = pair
    channel = dialer.channel(listener.addrs[0])
    ask = method(channel, "Metadata")
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        ask(b"", timeout=20, credentials=token())
    assert len(TABLE) == 0


def test_asyncio() -> None:
    async def main(listener: punchbridge.Bridge, dialer: punchbridge.Bridge) -> None:
        server = grpc.aio.server(handlers=(AioService(),), interceptors=(punchbridge.aio_guard(),))
        listener.serve(server)
        await server.start()
        async with dialer.aio_channel(listener.addrs[0]) as channel:
            ask = method(channel, "Metadata")
            assert (await ask(b"", timeout=20, credentials=token())).decode() == TOKEN
            assert (await ask(b"", timeout=20, credentials=stamp())).decode() == stamped(listener)
            assert await method(channel, "Up")(iter([b"12"]), timeout=20, credentials=token()) == b"2"
            down = method(channel, "Down")(b"2", timeout=20, credentials=token())
            assert [part async for part in down] == [b"0", b"1"]
            chat = method(channel, "Chat")(iter([b"a"]), timeout=20, credentials=token())
            assert [part async for part in chat] == [b"a"]
        async with dialer.aio_channel(listener.addrs[0], call_credentials=token()) as channel:
            told = (await method(channel, "Metadata")(b"", timeout=20, credentials=stamp())).decode()
            assert told.split("\n") == [TOKEN, stamped(listener)]
        await server.stop(None)

    with open_pair() as (listener, dialer):
        asyncio.run(asyncio.wait_for(main(listener, dialer), 50))
