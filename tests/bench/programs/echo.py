"""32 bytes there and back over any stream, and the other half. Knows no protocol."""

from __future__ import annotations

import time
from typing import Any, Protocol

SIZE = 32


class Duplex(Protocol):
    """What is asked of a stream; trio's and ours have it."""

    async def send_all(self, data: Any) -> None: ...

    async def receive_some(self, max_bytes: int = ..., /) -> bytes | bytearray: ...

    async def aclose(self) -> None: ...


async def echo_back(stream: Duplex) -> None:
    while data := await stream.receive_some(65536):
        await stream.send_all(data)
    await stream.aclose()


async def echo_times(stream: Duplex, count: int) -> list[float]:
    """Milliseconds of each round trip."""
    times, payload = [], bytes(SIZE)
    for _ in range(count):
        began = time.perf_counter()
        await stream.send_all(payload)
        got = 0
        while got < SIZE:
            data = await stream.receive_some(SIZE - got)
            if not data:
                raise EOFError("the echo ended")
            got += len(data)
        times.append(1000 * (time.perf_counter() - began))
    return times
