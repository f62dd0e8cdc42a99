"""A plain gRPC service with every kind of method, for sync and asyncio servers, and pairs of bridges on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import grpc
import trio

import punchbridge
from punchbridge.addresses import parse
from punchbridge.api.runtime import NetworkThread
from punchbridge.eventhub import EventHub
from punchbridge_relay.events import RelayListening
from punchbridge_relay.program import RelayConfig, run
from punchbridge_relay.service import HopService

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def method(channel: Any, name: str) -> Any:
    """A stub method of the service below."""
    kind = {"Up": "stream_unary", "Down": "unary_stream", "Chat": "stream_stream", "Wait": "unary_stream"}
    return getattr(channel, kind.get(name, "unary_unary"))(f"/test.Service/{name}")


class Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # At run time it takes no parameters.
    """Echo, Who, Metadata (what the call carried), Fail, Hang (until cancelled), Up (sum of sizes), Down (n messages),
    Chat (echo), Wait."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.started = threading.Event()
        self.infos: list[punchbridge.ConnectInfo] = []

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        kinds = {"Up": grpc.stream_unary_rpc_method_handler, "Chat": grpc.stream_stream_rpc_method_handler}
        kinds |= dict.fromkeys(("Down", "Wait"), grpc.unary_stream_rpc_method_handler)
        behaviour = getattr(self, name.lower(), None)
        return behaviour and kinds.get(name, grpc.unary_unary_rpc_method_handler)(behaviour)

    def echo(self, request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        if "x-ask" in metadata:
            context.send_initial_metadata((("x-initial", metadata["x-ask"]),))
            context.set_trailing_metadata((("x-trailing-bin", b"\x00\xff"),))
        return request

    def who(self, request: bytes, context: Any) -> bytes:
        info = punchbridge.peer(context)
        self.infos.append(info)
        return "\n".join((info.peer_id, info.path, info.multiaddr, info.protocol, str(info.address))).encode()

    def metadata(self, request: bytes, context: Any) -> bytes:
        told = sorted(f"{key}={value}" for key, value in context.invocation_metadata() if key != "user-agent")
        return "\n".join(told).encode()

    def fail(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: " + request.decode())
        raise AssertionError

    def hang(self, request: bytes, context: Any) -> bytes:
        ended = threading.Event()
        context.add_callback(ended.set)
        self.started.set()
        if ended.wait(20):
            self.cancelled.set()
        return b""

    def wait(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"first"
        self.hang(request, context)

    def up(self, requests: Iterator[bytes], context: Any) -> bytes:
        return str(sum(map(len, requests))).encode()

    def down(self, request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests


class AioService(Service):
    """The same for asyncio; `hang` tells when it was cancelled."""

    async def echo(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        metadata = dict(context.invocation_metadata())
        if "x-ask" in metadata:
            await context.send_initial_metadata((("x-initial", metadata["x-ask"]),))
            context.set_trailing_metadata((("x-trailing-bin", b"\x00\xff"),))
        return request

    async def who(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        return super().who(request, context)

    async def metadata(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        return super().metadata(request, context)

    async def fail(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        context.set_trailing_metadata((("x-why", "because"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: " + request.decode())
        raise AssertionError

    async def hang(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        self.started.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def wait(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        yield b"first"
        await self.hang(request, context)

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:  # type: ignore[override]
        return str(sum([len(part) async for part in requests])).encode()

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        for number in range(int(request)):
            yield str(number).encode()

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        async for request in requests:
            yield request


@contextmanager
def open_pair(*, sessions: bool = True) -> Iterator[tuple[punchbridge.Bridge, punchbridge.Bridge]]:
    """Two bridges on loopback: one for a server, one for a client."""
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, sessions=sessions) as server,
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, sessions=sessions) as client,
    ):
        yield server, client


@contextmanager
def serving(b: punchbridge.Bridge, service: Service, *, allow: Any = None, **options: Any) -> Iterator[grpc.Server]:
    """A sync grpc server, built as any application builds one, served on the bridge."""
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=[service], options=options.pop("options", BIG), **options)
        b.serve(server, allow=allow)
        server.start()
        try:
            yield server
        finally:
            server.stop(None).wait()


@contextmanager
def relay() -> Iterator[str]:
    """A relay on loopback; its address."""
    config = RelayConfig(identity=punchbridge.Identity.generate(), listen=(parse(LOOPBACK[0]),), allow_private=True)
    listening: list[str] = []
    events = EventHub()

    def note(event: punchbridge.Event) -> None:
        if isinstance(event, RelayListening):
            listening.extend(event.addrs)

    events.subscribe(note)

    @asynccontextmanager
    async def opened() -> AsyncIterator[HopService]:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(partial(run, config, events))
            nursery.cancel_scope.cancel()

    thread = NetworkThread(opened)
    thread.start()
    try:
        yield listening[0]
    finally:
        thread.stop()


@contextmanager
def relayed_pair(*, punch: bool, sessions: bool = True) -> Iterator[tuple[punchbridge.Bridge, punchbridge.Bridge, str]]:
    """A listener with a reservation, a dialer, and the listener's circuit address."""
    with (
        relay() as addr,
        punchbridge.open(
            listen=LOOPBACK, relays=[addr], allow_private=True, allow=punchbridge.ANYONE, punch=punch, sessions=sessions
        ) as listener,
        punchbridge.open(
            listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, punch=punch, sessions=sessions
        ) as dialer,
    ):
        yield listener, dialer, listener.wait_reservation(15)[0]


def who(channel: grpc.Channel) -> list[str]:
    """Peer id, path, multiaddr and more, as the server sees the caller."""
    answer: bytes = method(channel, "Who")(b"", timeout=15)
    return answer.decode().split("\n")


def eventually(holds: object, seconds: float = 10) -> None:
    """For what another process or thread does and tells nobody about: grpc closing a socket."""
    limit = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.01)


def details(error: grpc.RpcError) -> str:
    """What a failed call says."""
    said = error.details()
    assert said is not None
    return said


def trailing(error: grpc.RpcError) -> dict[str, Any]:
    """The trailing metadata of a failed call. grpc's stubs give its items a type that none of them has."""
    metadata: Any = error.trailing_metadata()
    return dict(metadata)
