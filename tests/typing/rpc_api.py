"""Checked by mypy --strict only, never run: the public API keeps the types that applications rely on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal, assert_type

import grpc
import grpc.aio

import punchbridge


def threads() -> None:
    server = grpc.server(
        ThreadPoolExecutor(2), options=punchbridge.server_options(), interceptors=[punchbridge.guard()]
    )
    labels = {"12D3": ["staff"]}
    authorizer = punchbridge.authorize({"a.B/*": ["staff"], "c.*": punchbridge.ANYONE, "*": "x"}, labels=labels)
    assert_type(authorizer.refused(), dict[str, int])
    grpc.server(ThreadPoolExecutor(2), interceptors=[authorizer])
    with punchbridge.open(key="k", relays=["/ip4/192.0.2.1/tcp/1/p2p/x"], events=print) as b:
        assert_type(b, punchbridge.Bridge)
        b.serve(server, protocol="/app/1")
        assert_type(b.wait_reservation(), tuple[str, ...])
        channel: grpc.Channel = b.channel("/p2p/x", path="direct", options=[("grpc.enable_retries", 0)])
        channel.close()
        token = grpc.access_token_call_credentials("token")
        b.channel("/p2p/x", call_credentials=token).close()
        punchbridge.authorize({"a.B/*": ["staff"]}, labels=b.labels)
        assert_type(b.last_error("x"), punchbridge.BridgeError | None)
        assert_type(b.wait_direct("x", 3.0), punchbridge.ConnectionInfo)
        assert_type(b.connections()[0].path, Literal["direct", "relay"])
        assert_type(b.status(), punchbridge.Status)
        assert_type(b.status().reachability, Literal["public", "private", "unknown"])


def handler(request: bytes, context: grpc.ServicerContext) -> bytes:
    info = punchbridge.peer(context)
    assert_type(info, punchbridge.ConnectInfo)
    assert_type(info.path, Literal["direct", "relay"])
    assert_type(info.address, tuple[str, int])
    return request


async def asynchronous(b: punchbridge.Bridge, server: grpc.aio.Server) -> None:
    grpc.aio.server(interceptors=[punchbridge.authorize({}, labels=lambda peer: (peer,))])
    b.serve(server)
    channel = b.aio_channel("/p2p/x", fresh=True)
    base: grpc.aio.Channel = channel
    assert_type(channel.info, punchbridge.ConnectInfo | None)
    await channel.close()
    await base.close(1.0)
    assert_type(await b.aio_connect("/p2p/x"), punchbridge.ConnectionInfo)


async def in_trio() -> None:
    async with punchbridge.open_trio(listen=()) as b:
        assert_type(b, punchbridge.TrioBridge)
        stream = await b.dial_stream("/p2p/x", "/app/1")
        assert_type(stream, punchbridge.BridgeStream)
        assert_type(await stream.receive_some(), bytes)
        async for taken in b.accept_stream("/app/1"):
            assert_type(taken, punchbridge.BridgeStream)
