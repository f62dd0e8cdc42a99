"""Joins the two streams of a circuit: bytes go through unread, end of stream stays that, a reset stays a reset.

Each circuit owns its own two streams and touches no other (specs/relay/circuit-v2, R4, R11). It knows no message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from bridge.errors import StreamReset
from bridge.net.raw import RawStream
from relay.circuits import Circuit, Direction
from relay.limits import CHUNK, EOF_TIMEOUT

NORMAL: Final = "NORMAL"
DATA_LIMIT: Final = "DATA_LIMIT"
DURATION_LIMIT: Final = "DURATION_LIMIT"
CONNECTION_LOST: Final = "CONNECTION_LOST"

_ENDS: Final = (StreamReset, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_SIDES: Final = {Direction.TO_TARGET: ("SOURCE", "TARGET"), Direction.TO_SOURCE: ("TARGET", "SOURCE")}


@dataclass
class End:
    """One end of a circuit: its stream, and the event that its connection is gone (None: there is none to watch)."""

    stream: RawStream
    lost: trio.Event | None = None


async def splice(circuit: Circuit, source: End, target: End, *, seconds: int) -> str:
    """Copies both ways until both directions ended; returns why the circuit ended.

    NORMAL, DURATION_LIMIT (after `seconds`, idle or not; 0: never), DATA_LIMIT (what fits was delivered),
    SOURCE_RESET / TARGET_RESET, or CONNECTION_LOST (an end that had sent all it wanted is gone). After all but NORMAL
    both streams are reset; so they are when cancelled.
    """
    reasons: list[str] = []
    running = 2
    try:
        with trio.move_on_after(seconds) if seconds else trio.CancelScope() as duration:
            async with trio.open_nursery() as nursery:

                async def run(direction: Direction, reader: End, writer: End) -> None:
                    nonlocal running
                    reason = await _copy(circuit, direction, reader.stream, writer.stream)
                    running -= 1
                    if reason == NORMAL and running and reader.lost is not None:
                        # What it sent is delivered, and nobody reads from it any more: so nobody else would notice
                        # its death while the other direction is idle.
                        await reader.lost.wait()
                        reason = CONNECTION_LOST
                    if reason != NORMAL:
                        reasons.append(reason)
                    if reasons or not running:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(run, Direction.TO_TARGET, source, target)
                nursery.start_soon(run, Direction.TO_SOURCE, target, source)
        if duration.cancelled_caught and not reasons:
            reasons.append(DURATION_LIMIT)
        if not reasons:
            await _close(source.stream, target.stream)
            return NORMAL
        return reasons[0]
    finally:
        # A stream that ended in good order ignores this; every other way out must reach both ends as a reset.
        source.stream.abort()
        target.stream.abort()


async def _copy(circuit: Circuit, direction: Direction, reader: RawStream, writer: RawStream) -> str:
    """One direction. Back-pressure: nothing more is read before the writer took all of it."""
    reading, writing = _SIDES[direction]
    while True:
        try:
            data = await reader.receive_some(CHUNK)
        except _ENDS:
            return f"{reading}_RESET"
        try:
            if not data:
                await writer.send_eof()
                return NORMAL
            size = circuit.take(direction, len(data))
            view = memoryview(data)[:size]
            sent = writer.send_nowait(view) if size else 0
            if sent < size:
                await writer.send_all(view[sent:])
        except _ENDS:
            return f"{writing}_RESET"
        if size < len(data):
            return DATA_LIMIT


async def _close(*streams: RawStream) -> None:
    with trio.move_on_after(EOF_TIMEOUT):
        for stream in streams:
            try:
                await stream.aclose()
            except _ENDS:
                continue
