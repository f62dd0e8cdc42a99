"""The pump over real sockets: a TCP stream that tells of its bytes stands where the libp2p stream stands in use."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from punchbridge.config import LocalLimits
from punchbridge.errors import BridgeError, StreamReset
from punchbridge.local.pump import Pumped, PumpEnd, pump
from punchbridge.transport.raw import Buffer
from punchbridge.transport.tcp.sockets import TcpStream


class Inbox(TcpStream):
    """Calls back when bytes are there, as streams do whose connection is read by somebody else."""

    keeps = True
    room = 1 << 20
    failure: BridgeError | None = None

    def __init__(self, sock: trio.socket.SocketType) -> None:
        super().__init__(sock)
        self.on_readable: Callable[[], None] | None = None
        self.taken = trio.Event()

    def receive_parts(self, max_bytes: int) -> list[Buffer] | None:
        data = self.receive_nowait(max_bytes)
        if data is None:
            self.taken.set()
            return None
        # More pieces than the kernel takes in one call, and few.
        cut = 2000 if len(data) % 2 else 7
        pieces: list[Buffer] = [data[at : at + 1] for at in range(min(cut, len(data)))]
        return [*pieces, data[cut:]] if len(data) > cut else pieces

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self.socket)

    async def watch(self) -> None:
        while True:
            await self.taken.wait()
            try:
                await trio.lowlevel.wait_readable(self.socket)
            except (trio.ClosedResourceError, OSError):
                return
            self.taken = trio.Event()
            if self.on_readable is not None:
                self.on_readable()


async def tcp_pair() -> tuple[Inbox, TcpStream]:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = trio.socket.socket()
    await client.connect(listener.getsockname())
    accepted, _ = await listener.accept()
    listener.close()
    return Inbox(client), TcpStream(accepted)


class Rig:
    """program — local socket — pump — near … far."""

    def __init__(
        self, program: trio.SocketStream, local: socket.socket, near: Inbox, far: TcpStream, limits: LocalLimits
    ) -> None:
        self.limits = limits
        self.program = program
        self.local = local
        self.near = near
        self.far = far
        self.outcome: Pumped | None = None
        self.done = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            self.outcome = await pump(self.local, self.near, self.limits)
        self.done.set()


@asynccontextmanager
async def rig(**limits: Any) -> AsyncIterator[Rig]:
    outer, local = socket.socketpair()
    outer.setblocking(False)
    local.setblocking(False)
    near, far = await tcp_pair()
    program = trio.SocketStream(trio.socket.from_stdlib_socket(outer))
    made = Rig(program, local, near, far, LocalLimits(**limits))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.watch)
        nursery.start_soon(made.run)
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
            far.abort()
            with trio.CancelScope(shield=True):
                await program.aclose()
    assert local.fileno() == -1, "the pump closes its local socket"


async def read_all(stream: TcpStream | trio.SocketStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)


async def test_bytes_cross_both_ways_and_ends_are_half_closes() -> None:
    async with rig() as r:
        await r.program.send_all(b"ping")
        assert await r.far.receive_some() == b"ping"
        await r.program.send_eof()
        assert await r.far.receive_some() == b""
        await r.far.send_all(b"still open the other way")
        await r.far.send_eof()
        assert await read_all(r.program) == b"still open the other way"
        await r.done.wait()
        assert r.outcome == Pumped(PumpEnd.CLOSED, "", 4, 24)


async def test_large_transfers_both_ways_arrive_whole() -> None:
    up, down = os.urandom(6_000_001), os.urandom(5_000_003)

    async with rig() as r:

        async def send(stream: TcpStream | trio.SocketStream, data: bytes) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        received: dict[str, bytes] = {}

        async def receive(name: str, stream: TcpStream | trio.SocketStream) -> None:
            received[name] = await read_all(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, r.program, up)
            nursery.start_soon(send, r.far, down)
            nursery.start_soon(receive, "up", r.far)
            nursery.start_soon(receive, "down", r.program)
        assert hashlib.sha256(received["up"]).digest() == hashlib.sha256(up).digest()
        assert hashlib.sha256(received["down"]).digest() == hashlib.sha256(down).digest()
        await r.done.wait()
        assert r.outcome == Pumped(PumpEnd.CLOSED, "", len(up), len(down))


async def test_a_reset_stream_closes_the_socket_at_once() -> None:
    async with rig() as r:
        await r.program.send_all(b"x")
        assert await r.far.receive_some() == b"x"
        reset(r.far)
        assert await read_all(r.program) == b""
        await r.done.wait()
        assert r.outcome is not None
        assert r.outcome.end is PumpEnd.REMOTE


async def test_a_reset_stream_resets_a_tcp_socket() -> None:
    program, local = await tcp_pair()
    near, far = await tcp_pair()
    taken = socket.socket(fileno=local.socket.detach())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, taken, near, LocalLimits())
        reset(far)
        with pytest.raises(trio.BrokenResourceError):
            await program.receive_some()
    program.abort()


async def test_a_program_that_goes_away_while_bytes_arrive_resets_the_stream() -> None:
    async with rig() as r:
        await r.program.aclose()
        assert await r.far.receive_some() == b""
        # Nobody reads these; the pump finds a broken pipe and ends long before `linger`.
        with trio.fail_after(LocalLimits().linger / 2):
            try:
                while not r.done.is_set():
                    await r.far.send_all(bytes(65536))
            except trio.BrokenResourceError:
                pass
            await r.done.wait()
        assert r.outcome is not None
        assert r.outcome.end is PumpEnd.LOCAL


async def test_a_program_that_goes_away_is_not_awaited_for_ever() -> None:
    async with rig(linger=0.05) as r:
        await r.program.aclose()
        with trio.fail_after(5):
            await r.done.wait()
        assert r.outcome is not None
        assert r.outcome.end is PumpEnd.LOCAL


async def test_half_closed_program_is_awaited() -> None:
    async with rig(linger=0.05) as r:
        await r.program.send_eof()
        assert await r.far.receive_some() == b""
        await trio.sleep(0.2)  # Longer than the linger: the bound must not apply to a half-close.
        await r.far.send_all(b"late answer")
        assert await r.program.receive_some() == b"late answer"


async def test_cancelling_closes_both_ends() -> None:
    async with rig() as r:
        await r.program.send_all(b"x")
        assert await r.far.receive_some() == b"x"
        r.scope.cancel()
        await r.done.wait()
        assert r.outcome is None
        assert await read_all(r.program) == b""
        with pytest.raises(trio.ClosedResourceError):
            r.near.send_nowait(b"x")


async def test_a_busy_pump_lets_others_run() -> None:
    """A fast sender must not starve the loop: other tasks get turns while 20 MB pass."""
    turns = 0
    async with rig() as r:

        async def flood() -> None:
            await r.program.send_all(bytes(20_000_000))
            await r.program.send_eof()

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            nursery.start_soon(flood)
            assert len(await read_all(r.far)) == 20_000_000
            nursery.cancel_scope.cancel()
    assert turns > 20


def reset(stream: TcpStream) -> None:
    """Closes with RST."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.abort()


async def test_a_stream_that_breaks_while_the_program_does_not_read_ends_the_pump() -> None:
    async with rig(linger=0.2) as r:
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                try:
                    while True:
                        await r.far.send_all(bytes(65536))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked(0.05)  # the program's socket is full now, and all before it
            r.near.failure = StreamReset("the peer reset the stream")
            assert r.near.on_readable is not None
            r.near.on_readable()
            with trio.fail_after(30):
                await r.done.wait()
            nursery.cancel_scope.cancel()
        assert r.outcome is not None
        assert (r.outcome.end, r.outcome.problem) == (PumpEnd.REMOTE, r.near.failure)
