"""The sender's task against the order in which it is woken and stopped."""

from __future__ import annotations

import trio
import trio.testing

from bridge.protocol.noise import Sealer
from bridge.swarm.sender import Sender


class FullSocket:
    """A socket that takes nothing for now."""

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_all(self, data: bytes) -> None:
        raise AssertionError("nothing is to be sent after the end")


async def test_stopped_between_waking_and_running_ends_quietly() -> None:
    lost: list[BaseException] = []
    sender = Sender(FullSocket(), Sealer(bytes(32)), lost=lost.append, room=lambda: None)  # type: ignore[arg-type]
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.run)
            await trio.testing.wait_all_tasks_blocked()
            sender.send(b"a frame")
            assert sender.queued
            sender.stop()
    assert not lost
