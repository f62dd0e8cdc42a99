"""What the bridge has py-libp2p write: whole frames, also when the task is cancelled; within bounds; nothing stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError

from punchbridge.libp2p.writes import LAST_WRITE, WRITE, Writes, for_the_bridge


@dataclass
class Session:
    """A secure session whose socket takes bytes once there is room."""

    room: trio.Event = field(default_factory=trio.Event)
    left: list[bytes] = field(default_factory=list)
    closed: bool = False

    async def write(self, data: bytes) -> None:
        await self.room.wait()
        self.left.append(data)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


@dataclass
class Muxed:
    secured_conn: Session = field(default_factory=Session)


async def cancelled_write(session: Session, *, ours: bool) -> None:
    """A write that waits for room when its task is cancelled; then there is room."""

    async def write() -> None:
        if not ours:
            await session.write(b"frame")
            return
        with for_the_bridge():
            await session.write(b"frame")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        session.room.set()


@pytest.mark.parametrize("ours", [True, False], ids=["for the bridge", "the host's own"])
async def test_cancelling_waits_for_a_frame_of_the_bridge_alone(ours: bool) -> None:
    muxed = Muxed()
    Writes(muxed)
    await cancelled_write(muxed.secured_conn, ours=ours)
    assert muxed.secured_conn.left == ([b"frame"] if ours else [])
    assert not muxed.secured_conn.closed


async def test_a_connection_that_takes_no_frame_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    muxed = Muxed()
    Writes(muxed)
    began = trio.current_time()
    with for_the_bridge(), pytest.raises(ConnectionClosedError):
        await muxed.secured_conn.write(b"frame")
    assert trio.current_time() - began == pytest.approx(WRITE)
    assert muxed.secured_conn.closed


async def test_a_bridge_that_leaves_waits_for_no_frame_for_long(autojump_clock: trio.testing.MockClock) -> None:
    muxed = Muxed()
    writes = Writes(muxed)
    began = trio.current_time()

    async def write() -> None:
        with for_the_bridge(), pytest.raises(ConnectionClosedError):
            await muxed.secured_conn.write(b"frame")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        writes.hurry()
        nursery.start_soon(write)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(LAST_WRITE)


async def test_afterwards_the_session_has_its_own_write() -> None:
    muxed = Muxed()
    writes = Writes(muxed)
    assert vars(muxed.secured_conn)["write"] == writes.write
    writes.leave()
    assert "write" not in vars(muxed.secured_conn)
    Writes(object()).leave()  # QUIC's connections have no such session
