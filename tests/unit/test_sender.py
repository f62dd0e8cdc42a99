"""The sender's task against the order in which it is woken and stopped."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.config import MuxedLimits
from punchbridge.errors import LimitExceeded
from punchbridge.transport.muxed.sender import Sender
from punchbridge.wire.noise import Sealer


class FullSocket:
    """A socket that takes nothing for now; the writer task's bytes leave once `open` is set."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.sending = False

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_all(self, data: bytes) -> None:
        self.sending = True
        await self.open.wait()
        self.sending = False


async def test_stopped_between_waking_and_running_ends_quietly() -> None:
    lost: list[BaseException] = []
    socket = FullSocket()
    sender = Sender(socket, Sealer(bytes(32)), MuxedLimits(), lost=lost.append, room=lambda: None)  # type: ignore[arg-type]
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.run)
            await trio.testing.wait_all_tasks_blocked()
            sender.send(b"a frame")
            assert sender.queued
            sender.stop()
    assert not lost
    assert not socket.sending


@pytest.mark.parametrize("turn", range(20))  # trio runs what is due in random order
async def test_flush_ends_only_when_nothing_is_being_sent(turn: int) -> None:
    socket = FullSocket()
    sender = Sender(socket, Sealer(bytes(32)), MuxedLimits(), lost=pytest.fail, room=lambda: None)  # type: ignore[arg-type]
    flushed = trio.Event()

    async def flush() -> None:
        await sender.flush()
        assert not sender.queued
        assert not socket.sending
        flushed.set()

    async def answer() -> None:
        # As the read loop does: in the turn in which the queue has drained, more is sent.
        while sender.queued:  # noqa: ASYNC110 - an event would be a turn late
            await trio.lowlevel.checkpoint()
        socket.open = trio.Event()
        sender.send(b"queued between the waking of the flush and its turn")

    with trio.fail_after(2):
        sender.send(b"a frame")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.run)
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(answer)
            socket.open.set()
            await trio.testing.wait_all_tasks_blocked()
            socket.open.set()
            await flushed.wait()
            nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_nothing_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    lost: list[BaseException] = []
    limits = MuxedLimits(send_timeout=20)
    sender = Sender(FullSocket(), Sealer(bytes(32)), limits, lost=lost.append, room=lambda: None)  # type: ignore[arg-type]
    sender.send(b"a frame")
    with trio.fail_after(30):
        await sender.run()
    assert trio.current_time() == 20
    assert isinstance(lost[0], LimitExceeded)


async def test_small_frames_are_kept_together_while_they_wait() -> None:
    """An object for each would take more memory than its bytes, and only these are counted."""
    socket = FullSocket()
    sender = Sender(socket, Sealer(bytes(32)), MuxedLimits(), lost=pytest.fail, room=lambda: None)  # type: ignore[arg-type]
    for _ in range(2000):
        sender.send(bytes(30))
    assert len(sender._queue) <= 3
    assert sender.queued == 1999 * 30 + 30 + 16 + 2  # the first one is sealed already


async def test_stopped_by_its_own_send_nothing_is_waited_for() -> None:
    """As over a circuit: the bytes end the connection below, which ends the one above while it is sending."""

    class DyingSocket(FullSocket):
        def send_nowait(self, data: bytes) -> int:
            sender.stop()
            return 1

    sender = Sender(DyingSocket(), Sealer(bytes(32)), MuxedLimits(), lost=pytest.fail, room=lambda: None)  # type: ignore[arg-type]
    sender.send(b"a frame")
    with trio.fail_after(2):
        await sender.flush()
