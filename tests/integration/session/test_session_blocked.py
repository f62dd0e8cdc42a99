"""A carrier that takes no bytes: the far end's host does not read its socket any more."""

from __future__ import annotations

import socket

import trio

from punchbridge.addresses import parse, with_peer
from punchbridge.session import SessionStream
from tests.support.session_lab import Pair, Route, pair, until

TALKER, SINK = "/test/talker/1.0.0", "/test/sink/1.0.0"
MIB = bytes(1 << 20)


async def stalling_proxy(both: Pair, stalled: trio.Event, *, task_status: trio.TaskStatus[int]) -> None:
    """Joins the dialler to the acceptor; once `stalled` is set, nothing goes to the acceptor any more."""
    _, port = both.acceptor.swarm.listen_port(4, "tcp") or ("", 0)
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    task_status.started(listener.getsockname()[1])
    with listener:
        near = trio.SocketStream((await listener.accept())[0])
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    far = await trio.open_tcp_stream("127.0.0.1", port)

    async def carry(source: trio.SocketStream, sink: trio.SocketStream, gate: trio.Event | None) -> None:
        try:
            while data := await source.receive_some(65536):
                if gate is not None and gate.is_set():
                    await trio.sleep_forever()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(carry, near, far, stalled)
        await carry(far, near, None)
        nursery.cancel_scope.cancel()


async def talk(stream: SessionStream) -> None:
    while True:
        await stream.send_all(b".")
        await trio.sleep(0.05)


async def sink(stream: SessionStream) -> None:
    while await stream.receive_some():
        pass


async def test_an_overdue_acknowledgement_does_not_keep_the_timer_running() -> None:
    stalled = trio.Event()
    async with pair() as both, trio.open_nursery() as nursery:
        both.acceptor.sessions.serve(TALKER, talk)
        both.acceptor.sessions.serve(SINK, sink)
        port = await nursery.start(stalling_proxy, both, stalled)
        addr = with_peer(parse(f"/ip4/127.0.0.1/tcp/{port}"), both.peer)
        connection = await both.dialler.swarm.dial(addr)
        route = Route(both.peer, addr)
        listening = await both.dialler.sessions.open(connection, TALKER, route=route, policy="any")
        nursery.start_soon(sink, listening)
        full = [await both.dialler.sessions.open(connection, SINK, route=route, policy="any") for _ in range(16)]
        stalled.set()
        for stream in full:
            nursery.start_soon(stream.send_all, MIB)
        machine = listening.live.machine
        await until(lambda: listening.live.active is not None and listening.live.active.blocked)
        await until(lambda: (machine.incoming.ack_due or 1e18) < trio.current_time())
        ticks, tick = 0, machine.tick

        def counted(now: float) -> object:
            nonlocal ticks
            ticks += 1
            return tick(now)

        machine.tick = counted  # type: ignore[method-assign, assignment]
        await trio.sleep(1)
        # Each byte that comes may cost a turn or two; the timer alone would make about a thousand.
        assert ticks < 200
        nursery.cancel_scope.cancel()
