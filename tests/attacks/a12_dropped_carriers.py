"""A target that takes each carrier of a session and drops it: how often `forward` attaches to it.

Each connection through `forward` brings 300 000 bytes that the target never lets arrive. In the first row it
acknowledges nothing, in the second one byte more with every carrier.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from punchbridge.identity import Identity, peer_text
from punchbridge.sessions.frames import HEADER, Attach, AttachedFrame
from punchbridge.yamux.frames import RST, WINDOW_UPDATE
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Row, Stage
from tests.attacks.wire import EXPECTED, Stream

SESSION = "/punchbridge/session/1.0.0"
GRPC = "/punchbridge/grpc/1.0.0"
OWED = bytes(300_000)


class Target:
    """A hostile target. `crumbs`: bytes that it says it received beyond those of the carrier before."""

    def __init__(self, crumbs: int) -> None:
        self.crumbs = crumbs
        self.identity = Identity.generate()
        self.attaches: list[float] = []
        self.bytes = 0
        self.port = 0

    @property
    def addr(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}/p2p/{peer_text(self.identity.peer_id)}"

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, stream: trio.SocketStream) -> None:
        with expected():
            connection = await Attacker.accepted(stream, self.identity)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.serve, {SESSION: self._carrier, GRPC: self._carrier})
                await connection.run()
                nursery.cancel_scope.cancel()

    async def _carrier(self, stream: Stream) -> None:
        head = await stream.need(HEADER.size)
        _, length, value = HEADER.unpack(head)
        attach = Attach.decode(value, await stream.need(length))
        self.attaches.append(time.monotonic())
        received = self.crumbs * attach.generation
        answer = AttachedFrame(
            attach.generation, min(received, len(OWED) - 1) if not attach.fresh else 0, 1 << 20, False
        )
        await stream.send(answer.encode())
        if self.crumbs or attach.fresh:
            with trio.move_on_after(0.2):
                await stream.need(1)
        self.bytes += stream.total
        await stream.frame(WINDOW_UPDATE, RST, 0)


@contextmanager
def expected() -> Iterator[None]:
    """What ends a connection of an attacker ends nothing else."""
    try:
        yield
    except* EXPECTED:
        pass


async def _caller(path: str) -> None:
    """A local program that sends, and comes again when its connection ends."""
    while True:
        try:
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(OWED)
                while await stream.receive_some(64):
                    pass
        except EXPECTED:
            pass
        await trio.sleep(0.5)


async def _row(stage: Stage, what: str, crumbs: int) -> Row:
    target = Target(crumbs)
    await stage.nursery.start(target.serve)
    forward = await stage.forward(target.addr, "--no-p2p")
    seconds = stage.pick(15.0, 6.0)
    told, began = forward.told, 0.0

    async def attack() -> None:
        nonlocal told, began
        told, began = forward.told, time.monotonic()
        await _caller(forward.socket)

    row = await stage.measure(what, forward, attack, seconds=seconds, calm=1.0)
    times = [one - began for one in target.attaches]
    most = max((sum(first <= one < first + 3 for one in times) for first in times), default=0)
    row.said["attaches"] = len(times)
    row.said["a second"] = round(len(times) / seconds, 1)
    row.said["most in 3 s"] = most
    row.said["KiB sent"] = target.bytes // 1024
    row.said["KiB/s of events"] = round((forward.told - told) / seconds / 1024, 1)
    row.bound("it was attacked", len(times) >= 3)
    row.bound("at most 2 attaches a second, over any three", most <= 6)
    row.bound("memory +16 MiB at most", row.grown <= 16)
    return row


async def main(stage: Stage) -> list[Row]:
    return [
        await _row(stage, "each carrier is taken and dropped", 0),
        await _row(stage, "the same, a byte more acknowledged each time", 1),
    ]
