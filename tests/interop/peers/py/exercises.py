"""The exercises of the suite on one stream, for both Python peers: what a server answers and what a client measures.

Knows a stream only as `Duplex`, which each peer makes from its own library's.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio
from wire import BLOCK, COUNT, ECHO, PAUSE, PERF, RESET, SLOW, Order, pattern


class SeenReset(Exception):
    """The other side reset the stream, as this library tells its reader."""


class Duplex(Protocol):
    """`read` gives b"" at the end of the stream and raises SeenReset; `end` is a half-close."""

    async def read(self, size: int) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def end(self) -> None: ...

    async def reset(self) -> None: ...


async def drain(stream: Duplex) -> int:
    total = 0
    while data := await stream.read(BLOCK):
        total += len(data)
    return total


async def exactly(stream: Duplex, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = await stream.read(size - len(data))
        if not more:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += more
    return bytes(data)


async def send_zeros(stream: Duplex, size: int) -> None:
    block = bytes(BLOCK)
    for start in range(0, size, BLOCK):
        await stream.write(block[: size - start] if size - start < BLOCK else block)


# --- served ------------------------------------------------------------------------------------------------


async def on_echo(stream: Duplex) -> None:
    while data := await stream.read(BLOCK):
        await stream.write(data)
    await stream.end()


async def on_count(stream: Duplex) -> None:
    await stream.write(struct.pack(">Q", await drain(stream)))
    await stream.end()


async def on_slow(stream: Duplex) -> None:
    await trio.sleep(PAUSE)
    await on_count(stream)


async def on_reset(stream: Duplex) -> None:
    await exactly(stream, 4)
    await stream.reset()


async def on_perf(stream: Duplex) -> None:
    (wanted,) = struct.unpack(">Q", await exactly(stream, 8))
    await drain(stream)
    await send_zeros(stream, wanted)
    await stream.end()


Handler = Callable[[Duplex], Awaitable[None]]
HANDLERS: dict[str, Handler] = {ECHO: on_echo, COUNT: on_count, SLOW: on_slow, RESET: on_reset, PERF: on_perf}


# --- asked for ---------------------------------------------------------------------------------------------


async def echo(stream: Duplex, size: int) -> dict[str, Any]:
    began, sent = time.monotonic(), pattern(size)
    place, same = 0, True

    async def send() -> None:
        for start in range(0, size, BLOCK):
            await stream.write(sent[start : start + BLOCK])
        await stream.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await stream.read(BLOCK):
            same = same and sent[place : place + len(data)] == data
            place += len(data)
    return {"bytes": place, "same": same and place == size, "seconds": time.monotonic() - began}


async def counted(stream: Duplex, size: int) -> dict[str, Any]:
    """Also says how much the other side let us write in the first second."""
    written, early = 0, 0

    async def look() -> None:
        nonlocal early
        await trio.sleep(1.0)
        early = written

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        while written < size:
            block = min(BLOCK, size - written)
            await stream.write(bytes(block))
            written += block
        await stream.end()
        (count,) = struct.unpack(">Q", await exactly(stream, 8))
        nursery.cancel_scope.cancel()
    return {"count": count, "first_second": early}


async def reset(stream: Duplex) -> dict[str, Any]:
    await stream.write(bytes(4))
    try:
        await drain(stream)
    except SeenReset:
        return {"seen": "reset"}
    return {"seen": "end"}


async def perf(stream: Duplex, order: Order) -> dict[str, Any]:
    began = time.monotonic()
    await stream.write(struct.pack(">Q", order["down"]))
    await send_zeros(stream, order["up"])
    await stream.end()
    return {"down": await drain(stream), "seconds": time.monotonic() - began}


async def many(open_echo: Callable[[], Awaitable[Duplex]], count: int) -> dict[str, Any]:
    """Opens all streams, each known to be served, before it uses any further."""
    streams: list[Duplex] = []
    good = 0
    for _ in range(count):
        streams.append(stream := await open_echo())
        await stream.write(b"\0")
        await exactly(stream, 1)

    async def one(stream: Duplex) -> None:
        nonlocal good
        result = await echo(stream, 1000)
        good += result["same"]

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(one, stream)
    return {"good": good}


async def exercise(name: str, stream: Duplex, order: Order) -> dict[str, Any]:
    """Carries out the order `name` on a stream of its protocol."""
    if name == "echo":
        return await echo(stream, order["size"])
    if name in ("count", "slow"):
        return await counted(stream, order["size"])
    return await (perf(stream, order) if name == "perf" else reset(stream))
