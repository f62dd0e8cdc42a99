"""Our own host as a peer of the interop suite: the same orders as the foreign peers, carried out by the library.

It judges nothing; each answer says what this side saw.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import trio
from wire import BLOCK, COUNT, ECHO, PAUSE, PERF, PROTOCOLS, RESET, SLOW, Order, options, pattern, say, serve_orders

from bridge.addresses import parse, with_peer
from bridge.behaviours.host import Host, HostConfig, open_host
from bridge.errors import StreamReset
from bridge.events import (
    AutonatResult,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    EventHub,
    PunchFailed,
    PunchSucceeded,
    ReservationAccepted,
)
from bridge.identity import Identity, parse_peer_id, peer_text
from bridge.swarm.connection import Connection
from bridge.swarm.stream import Stream
from relay.limits import RelayLimits
from relay.service import HopService

MANY = 1024
"""Streams of one protocol at once; the suite opens 100."""


async def drain(stream: Stream) -> int:
    total = 0
    while data := await stream.receive_some():
        total += len(data)
    return total


async def send_zeros(stream: Stream, size: int) -> None:
    block = bytes(BLOCK)
    for start in range(0, size, BLOCK):
        await stream.send_all(block[: size - start] if size - start < BLOCK else block)


async def on_echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


async def on_count(stream: Stream, wait: float = 0.0) -> None:
    await trio.sleep(wait)
    await stream.send_all(struct.pack(">Q", await drain(stream)))
    await stream.aclose()


async def on_slow(stream: Stream) -> None:
    await on_count(stream, PAUSE)


async def on_reset(stream: Stream) -> None:
    await read_exactly(stream, 4)
    stream.reset()


async def on_perf(stream: Stream) -> None:
    (wanted,) = struct.unpack(">Q", await read_exactly(stream, 8))
    await drain(stream)
    await send_zeros(stream, wanted)
    await stream.aclose()


async def read_exactly(stream: Stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += more
    return bytes(data)


Handler = Callable[[Stream], Awaitable[None]]
HANDLERS: dict[str, Handler] = {ECHO: on_echo, COUNT: on_count, SLOW: on_slow, RESET: on_reset, PERF: on_perf}


async def echo(stream: Stream, size: int) -> dict[str, Any]:
    began, sent = time.monotonic(), pattern(size)
    place, same = 0, True

    async def send() -> None:
        await stream.send_all(sent)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await stream.receive_some():
            same = same and sent[place : place + len(data)] == data
            place += len(data)
    return {"bytes": place, "same": same and place == size, "seconds": time.monotonic() - began}


async def counted(stream: Stream, size: int) -> dict[str, Any]:
    """Also says how much the other side let us write in the first second."""
    written, early = 0, 0

    async def look() -> None:
        nonlocal early
        await trio.sleep(1.0)
        early = written

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        block = bytes(BLOCK)
        while written < size:
            written += stream.send_nowait(block[: size - written])
            await stream.wait_send_all_might_not_block()
        await stream.send_eof()
        (count,) = struct.unpack(">Q", await read_exactly(stream, 8))
        nursery.cancel_scope.cancel()
    return {"count": count, "first_second": early}


async def reset(stream: Stream) -> dict[str, Any]:
    await stream.send_all(bytes(4))
    try:
        await drain(stream)
    except StreamReset:
        return {"seen": "reset"}
    return {"seen": "end"}


async def perf(stream: Stream, order: Order) -> dict[str, Any]:
    began = time.monotonic()
    await stream.send_all(struct.pack(">Q", order["down"]))
    await send_zeros(stream, order["up"])
    await stream.send_eof()
    return {"down": await drain(stream), "seconds": time.monotonic() - began}


def describe(event: ConnectionOpened | ConnectionClosed) -> dict[str, Any]:
    name = "opened" if isinstance(event, ConnectionOpened) else "closed"
    return {"event": name, **event.as_dict(), "relay": event.path == "relay"}


def on_event(event: Event) -> None:
    if isinstance(event, ConnectionOpened | ConnectionClosed):
        say(describe(event))
    elif isinstance(event, PunchSucceeded | PunchFailed):
        say({"event": "punch", "ok": isinstance(event, PunchSucceeded), **event.as_dict()})
    elif isinstance(event, ReservationAccepted):
        say({"event": "reservation", "relay": event.relay, "renewal": event.renewed})
    elif isinstance(event, AutonatResult):
        say({"event": "autonat", "ok": event.reachability == "public", **event.as_dict()})


class Peer:
    """Carries out orders on one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._swarm = host.swarm

    async def obey(self, order: Order) -> dict[str, Any]:
        name = order["do"]
        if name in PROTOCOLS:
            return await self._stream(name, order)
        result: dict[str, Any] = await getattr(self, f"do_{name}")(order)
        return result

    async def do_dial(self, order: Order) -> dict[str, Any]:
        connection = await self._swarm.dial(parse(order["addr"]), fresh=True)
        return {"peer": peer_text(connection.peer)}

    async def do_reserve(self, order: Order) -> dict[str, Any]:
        got = await self._host.relay_client.reserve(parse(order["addr"]))
        return {
            "addrs": [str(addr) for addr in got.addrs],
            "expires": got.expires,
            "limit_bytes": (got.limit and got.limit.bytes) or 0,
            "limit_seconds": (got.limit and got.limit.seconds) or 0,
        }

    async def do_listen(self, order: Order) -> dict[str, Any]:
        return {"addr": str((await self._swarm.listen(parse(order["addr"])))[0])}

    async def do_conns(self, order: Order) -> dict[str, Any]:
        return {"conns": [self._shown(one) for one in self._connections(order)]}

    async def do_close(self, order: Order) -> dict[str, Any]:
        await self._swarm.close(parse_peer_id(order["peer"]))
        return {}

    async def do_ping(self, order: Order) -> dict[str, Any]:
        pings = self._host.ping.ping(parse_peer_id(order["peer"]), order["count"], interval=0.01)
        async with aclosing(pings):  # type: ignore[type-var]
            return {"ms": [seconds * 1000 async for seconds in pings]}

    async def do_identify(self, order: Order) -> dict[str, Any]:
        connection = self._connections(order)[0]
        await connection.identified.wait()
        info = connection.identify
        if info is None:
            raise LookupError("no identify")
        return {
            "agent": info.agent,
            "protocols": list(info.protocols),
            "listen": [str(addr) for addr in info.listen],
            "observed": str(info.observed),
        }

    def _connections(self, order: Order) -> tuple[Connection, ...]:
        return self._swarm.connections(parse_peer_id(order["peer"]))

    @staticmethod
    def _shown(one: Connection) -> dict[str, Any]:
        return {
            "local": str(one.local),
            "remote": str(one.remote),
            "relay": one.path == "relay",
            "inbound": one.inbound,
        }

    async def _stream(self, name: str, order: Order) -> dict[str, Any]:
        peer = parse_peer_id(order["peer"])
        if name == "many":
            return await self._many(order)
        stream = await self._swarm.open_stream(peer, [PROTOCOLS[name]])
        try:
            if name == "echo":
                return await echo(stream, order["size"])
            if name in ("count", "slow"):
                return await counted(stream, order["size"])
            return await (perf(stream, order) if name == "perf" else reset(stream))
        finally:
            stream.reset()

    async def _many(self, order: Order) -> dict[str, Any]:
        """Opens all streams, each known to be served, before it uses any further."""
        peer = parse_peer_id(order["peer"])
        streams, good = [], 0
        for _ in range(order["count"]):
            streams.append(stream := await self._swarm.open_stream(peer, [ECHO]))
            await stream.send_all(b"\0")
            await read_exactly(stream, 1)

        async def one(stream: Stream) -> None:
            nonlocal good
            result = await echo(stream, 1000)
            good += result["same"]

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(one, stream)
        return {"good": good}


async def main() -> None:
    given, hub = options(), EventHub()
    hub.subscribe(on_event)
    config = HostConfig(
        Identity.generate(),
        allow_private=not (given.punch or given.autonat),
        punch=given.punch,
        autonat=given.autonat,
        autonat_server=given.autonat,
    )
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_host(config, hub))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if given.relay:
            limits = RelayLimits(
                reservations=given.reservations,
                reservations_per_address=0,
                reservation_ttl=given.ttl,
                circuit_bytes=given.limit_bytes,
                circuit_seconds=given.limit_seconds,
            )
            await nursery.start(HopService(host.swarm, limits).run)
        for protocol, handler in HANDLERS.items():
            await host.swarm.handle(protocol, handler, max_streams=MANY, max_per_peer=MANY)
        for addr in given.listen:
            await host.swarm.listen(parse(addr))
        addrs = [str(with_peer(addr, host.swarm.peer)) for addr in host.swarm.listen_addrs()]
        say({"event": "ready", "peer": peer_text(host.swarm.peer), "addrs": addrs, "version": config.agent})
        await serve_orders(Peer(host).obey)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
