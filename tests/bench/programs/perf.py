"""Throughput measurement over /perf/1.0.0 (specs/perf): the answering and the asking side.

For measurements only; no program of ours answers it, since a peer may make us send as much as it likes for
PERF_TIMEOUT seconds. The two halves of an exchange are plain functions over any byte stream, so that other stacks can
be measured by the same code.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from punchbridge.errors import ProtocolViolation
from punchbridge.identity import PeerId
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection, Stream

__all__ = ["PERF", "PerfService", "Transfer", "answer", "ask"]

PERF = "/perf/1.0.0"
PERF_BLOCK = 256 << 10
"""One write of a measurement: what the pump reads at once."""
PERF_TIMEOUT = 300.0
"""Seconds for one exchange; the cap of libp2p's own perf tests."""
MAX_PERF_STREAMS = 64
"""Exchanges at once, in all and of one peer."""
_WANTED = struct.Struct(">Q")
_ZEROS = memoryview(bytes(PERF_BLOCK))


class Duplex(Protocol):
    """What the two halves of an exchange ask of a stream."""

    async def send_all(self, data: Any) -> None: ...

    async def receive_some(self, max_bytes: int = ..., /) -> bytes | bytearray: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Transfer:
    """One exchange: bytes sent and received, and the seconds from the first byte to the peer's end."""

    up: int
    down: int
    seconds: float


class PerfService:
    """The perf behaviour of a swarm; `run` it in a nursery to answer, `measure` at any time."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answers until the swarm ends."""
        await self._swarm.handle(PERF, self._answer, max_streams=MAX_PERF_STREAMS, max_per_peer=MAX_PERF_STREAMS)
        task_status.started()
        await trio.sleep_forever()

    async def _answer(self, stream: Stream) -> None:
        with trio.fail_after(PERF_TIMEOUT):
            await answer(stream)

    async def measure(self, target: PeerId | Connection, *, up: int, down: int) -> Transfer:
        """Sends `up` bytes, then receives `down` bytes, over one fresh stream, opened in the flight of its first bytes.

        Raises what `Swarm.connect` and the stream raise, and ProtocolViolation when the peer sends another number of
        bytes. No deadline of its own; cancelling resets the stream.
        """
        connection = await self._swarm.connect(target) if isinstance(target, PeerId) else target
        stream = await connection.open_stream((PERF,), lazy=True)
        try:
            return await ask(stream, up=up, down=down)
        finally:
            stream.abort()


async def answer(stream: Duplex) -> None:
    """The server's half: reads the number wanted and everything up to the end, then sends that many bytes."""
    first = b""
    while len(first) < _WANTED.size:
        data = await stream.receive_some()
        if not data:
            raise ProtocolViolation("a perf stream that ended within its first number")
        first += data
    while await stream.receive_some():
        pass
    await _send(stream, _WANTED.unpack_from(first)[0])
    await stream.send_eof()
    await stream.aclose()


async def ask(stream: Duplex, *, up: int, down: int) -> Transfer:
    """The client's half. Raises ProtocolViolation when another number of bytes than `down` comes back."""
    began = time.perf_counter()
    await stream.send_all(_WANTED.pack(down))
    await _send(stream, up)
    await stream.send_eof()
    received = 0
    while data := await stream.receive_some():
        received += len(data)
    if received != down:
        raise ProtocolViolation(f"{received} bytes came back, {down} were asked for")
    return Transfer(up, down, time.perf_counter() - began)


async def _send(stream: Duplex, count: int) -> None:
    while count > 0:
        size = min(count, PERF_BLOCK)
        await stream.send_all(_ZEROS[:size])
        count -= size
