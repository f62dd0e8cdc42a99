"""Joins the two streams of a circuit: bytes go through unread, end of stream stays that, a reset stays a reset.

Each circuit owns its own two streams and touches no other (specs/relay/circuit-v2, R4, R11). It knows no message.
"""

from __future__ import annotations

from typing import Final

import trio

from punchbridge.errors import ConnectionLost
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Stream
from punchbridge.transport.raw import Buffer
from punchbridge_relay.circuits import Circuit, Direction
from punchbridge_relay.limits import HopLimits

NORMAL: Final = "NORMAL"
DATA_LIMIT: Final = "DATA_LIMIT"
DURATION_LIMIT: Final = "DURATION_LIMIT"
CONNECTION_LOST: Final = "CONNECTION_LOST"
STALLED: Final = "STALLED"

_SIDES: Final = {Direction.TO_TARGET: ("SOURCE", "TARGET"), Direction.TO_SOURCE: ("TARGET", "SOURCE")}


async def splice(circuit: Circuit, source: Stream, target: Stream, *, seconds: int, hop: HopLimits) -> str:
    """Copies both ways until both directions ended; returns why the circuit ended.

    NORMAL, DURATION_LIMIT (after `seconds`, idle or not; 0: never), DATA_LIMIT (what fits was delivered),
    SOURCE_RESET / TARGET_RESET, CONNECTION_LOST (an end that had sent all it wanted is gone), or STALLED (bytes waited,
    and the end that they are for took nothing for `hop.stalled` seconds). After all but NORMAL both streams are reset;
    so they are when cancelled.
    """
    reasons: list[str] = []
    running = 2
    try:
        with trio.move_on_after(seconds) if seconds else trio.CancelScope() as duration:
            async with trio.open_nursery() as nursery:

                async def run(direction: Direction, reader: Stream, writer: Stream) -> None:
                    nonlocal running
                    reason = await _Copy(circuit, direction, reader, writer, hop).run()
                    running -= 1
                    if reason == NORMAL and running:
                        # What it sent is delivered, and nobody reads from it any more: so nobody else would notice
                        # its death while the other direction is idle.
                        reason = await _death(direction, reader)
                    if reason != NORMAL:
                        reasons.append(reason)
                    if reasons or not running:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(run, Direction.TO_TARGET, source, target)
                nursery.start_soon(run, Direction.TO_SOURCE, target, source)
        if duration.cancelled_caught and not reasons:
            reasons.append(DURATION_LIMIT)
        if not reasons:
            await _close(hop.close_timeout, source, target)
            return NORMAL
        return reasons[0]
    finally:
        # A stream that ended in good order ignores this; every other way out must reach both ends as a reset.
        source.abort()
        target.abort()


class _Copy:
    """One direction. Back-pressure: no more is taken from the reader than the writer has room for."""

    def __init__(self, circuit: Circuit, direction: Direction, reader: Stream, writer: Stream, hop: HopLimits) -> None:
        self._read, self._turns, self._stalled = hop.read, hop.turns, hop.stalled
        self._circuit, self._direction = circuit, direction
        self._reader, self._writer = reader, writer
        self._delivering = self._blocked = False
        self._rest: list[Buffer] = []
        self._ended = False
        self._reason = ""
        self._handed_over = Signal()

    async def run(self) -> str:
        """Goes on where `_deliver` stops; returns why the direction ended."""
        _, writing = _SIDES[self._direction]
        self._reader.on_readable = self._deliver
        seen = self._handed_over.number
        try:
            self._deliver()
            while True:
                seen = await self._handed_over.beyond(seen)
                while self._blocked:
                    with trio.move_on_after(self._stalled) as patience:
                        await self._writer.wait_send_all_might_not_block()
                    if patience.cancelled_caught:
                        return STALLED
                    rest, self._rest = self._rest, []
                    self._send(rest)
                if self._ended:
                    await self._writer.send_eof()
                    return NORMAL
                if self._reason:
                    return self._reason
                self._deliver()
        except NETWORK_FAILURES:
            return f"{writing}_RESET"
        finally:
            self._reader.on_readable = None

    def _deliver(self) -> None:
        """Passes on what has arrived, in the task that brought it: a task switch costs more than the copy.

        Hands over to `run` when the writer would block, at every end, and after `turns` reads.
        """
        if self._delivering or self._blocked or self._ended or self._reason:
            return
        reading, writing = _SIDES[self._direction]
        self._delivering = True
        try:
            for _ in range(self._turns):
                room = self._writer.room
                if not room and self._reader.waiting:
                    self._blocked = True
                    break
                try:
                    pieces = self._reader.receive_parts(min(self._read, room) or self._read)
                except NETWORK_FAILURES:
                    self._reason = f"{reading}_RESET"
                    break
                if pieces is None:
                    return
                if not pieces:
                    self._ended = True
                    break
                total = sum(map(len, pieces))
                size = self._circuit.take(self._direction, total)
                if size < total:
                    self._reason = DATA_LIMIT
                    pieces = [memoryview(b"".join(pieces))[:size]]
                self._send(pieces)
                if self._blocked or self._reason:
                    break
        except NETWORK_FAILURES:
            self._reason = f"{writing}_RESET"
        finally:
            self._delivering = False
        self._handed_over.notify()

    def _send(self, pieces: list[Buffer]) -> None:
        self._blocked = False
        for number, piece in enumerate(pieces):
            sent = self._writer.send_nowait(piece)
            if sent < len(piece):
                self._rest = [memoryview(piece)[sent:], *pieces[number + 1 :]]
                self._blocked = True
                return


async def _death(direction: Direction, reader: Stream) -> str:
    """Waits until a stream that has ended in good order is reset all the same, or its connection is gone."""
    reasons: list[str] = []
    gone = trio.Event()

    def look() -> None:
        try:
            reader.send_nowait(b"")  # says whether the stream is alive
        except NETWORK_FAILURES as problem:
            reasons.append(CONNECTION_LOST if isinstance(problem, ConnectionLost) else f"{_SIDES[direction][0]}_RESET")
            gone.set()

    reader.on_readable = look
    try:
        look()  # it may have happened already
        await gone.wait()
        return reasons[0]
    finally:
        reader.on_readable = None


async def _close(seconds: float, *streams: Stream) -> None:
    with trio.move_on_after(seconds):
        for stream in streams:
            try:
                await stream.aclose()
            except NETWORK_FAILURES:
                continue
