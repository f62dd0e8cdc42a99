"""Joins the two streams of a circuit: bytes go through unread, end of stream stays that, a reset stays a reset.

Each circuit owns its own two streams and touches no other (specs/relay/circuit-v2, R4, R11). It knows no message.
"""

from __future__ import annotations

from collections.abc import Sequence
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


async def splice(
    circuit: Circuit, source: RawStream, target: RawStream, *, seconds: int, lost: Sequence[trio.Event] = ()
) -> str:
    """Copies both ways until both directions ended; returns why the circuit ended.

    NORMAL, DURATION_LIMIT (after `seconds`, idle or not; 0: never), DATA_LIMIT (what fits was delivered),
    SOURCE_RESET / TARGET_RESET, or CONNECTION_LOST (an event of `lost` was set). After all but NORMAL both streams
    are reset; so they are when cancelled.
    """
    reasons: list[str] = []
    try:
        with trio.move_on_after(seconds) if seconds else trio.CancelScope() as duration:
            async with trio.open_nursery() as nursery:
                running = 2

                async def run(direction: Direction, reader: RawStream, writer: RawStream) -> None:
                    nonlocal running
                    reason = await _copy(circuit, direction, reader, writer)
                    running -= 1
                    if reason != NORMAL:
                        reasons.append(reason)
                    if reasons or not running:
                        nursery.cancel_scope.cancel()

                async def watch(event: trio.Event) -> None:
                    # A direction that ended already no longer reads, so it would not see its connection die.
                    await event.wait()
                    await trio.lowlevel.checkpoint()
                    reasons.append(CONNECTION_LOST)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(run, Direction.TO_TARGET, source, target)
                nursery.start_soon(run, Direction.TO_SOURCE, target, source)
                for event in lost:
                    nursery.start_soon(watch, event)
        if duration.cancelled_caught and not reasons:
            reasons.append(DURATION_LIMIT)
        if not reasons:
            await _close(source, target)
            return NORMAL
        return reasons[0]
    finally:
        # A stream that ended in good order ignores this; every other way out must reach both ends as a reset.
        source.abort()
        target.abort()


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
