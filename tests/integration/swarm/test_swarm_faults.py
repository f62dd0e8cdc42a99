"""What one command, one address or one moment does wrong costs that alone, not the swarm; over loopback."""

from __future__ import annotations

import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from punchbridge.addresses import Multiaddr, parse
from punchbridge.errors import BridgeError, ConnectionLost, SwarmStopped, Unreachable
from punchbridge.events import ConnectionClosed, ConnectionOpened
from punchbridge.identity import Identity, PeerId
from punchbridge.transport.base import Accept, Connection, Stream
from punchbridge.transport.interfaces import interface_addresses
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.upgrade import upgrade
from punchbridge.transport.tcp.sockets import TcpStream
from punchbridge.yamux.frames import INITIAL_WINDOW
from tests.support.muxed import muxed
from tests.support.pairs import tcp_pair
from tests.support.steps import Steps, cut_after
from tests.support.swarms import ECHO, Node, adopt, closed_port, open_node

STRANGER = Identity.generate()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """While open, this process cannot open another file or socket."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def lives(node: Node, other: Node) -> None:
    with trio.fail_after(5):
        await node.swarm.connect(other.peer, [other.addr])
        stream = await node.swarm.open_stream(other.peer, [ECHO])
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocols", [[], ["/test/\ud800"]], ids=["none", "not text"])
async def test_a_callers_fault_is_the_callers_alone(protocols: list[str]) -> None:
    async with open_node() as a, open_node() as b:
        connection = await a.swarm.dial(b.addr)
        with pytest.raises(ValueError):
            await a.swarm.open_stream(b.peer, protocols)
        await lives(a, b)
        assert connection.streams == 1


class FaultyTransport:
    """A transport with a defect."""

    def handles(self, addr: Multiaddr) -> bool:
        return str(addr).startswith("/dns6/")

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        await trio.lowlevel.checkpoint()
        raise KeyError("a defect")

    async def listen(self, addr: Multiaddr, accept: Accept) -> tuple[Multiaddr, ...]:
        raise KeyError("a defect")


@pytest.mark.parametrize("command", ["dial", "fresh", "connect", "listen"])
async def test_a_defect_in_a_command_is_told_to_its_caller(command: str) -> None:
    addr = parse("/dns6/example.org/tcp/1")
    async with open_node() as a, open_node() as b:
        a.swarm.add_transport(FaultyTransport())
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "dial": partial(a.swarm.dial, addr),
            "fresh": partial(a.swarm.dial, addr, fresh=True),
            "connect": partial(a.swarm.connect, STRANGER.peer_id, [addr]),
            "listen": partial(a.swarm.listen, addr),
        }
        with pytest.raises(KeyError):
            await calls[command]()
        await lives(a, b)


async def test_a_dial_and_the_addresses_when_no_descriptor_is_left() -> None:
    async with open_node(parse("/ip4/0.0.0.0/tcp/0")) as a, open_node() as b:
        before = a.swarm.listen_addrs()
        port = a.swarm.listen_port(4, "tcp")
        assert port is not None
        with no_descriptors():
            assert a.swarm.listen_addrs() == before
            assert interface_addresses()
            for fresh in (False, True):
                with pytest.raises(Unreachable, match="open files"):
                    await a.swarm.dial(parse(f"/ip4/192.0.2.1/tcp/{port[1]}"), fresh=fresh)
        await lives(a, b)


# --- moments ----------------------------------------------------------------------------------------------


async def test_a_connection_that_says_goodbye_is_not_taken_for_a_live_one() -> None:
    async with open_node() as a, open_node(identity=STRANGER) as b, tcp_pair() as (mine, theirs):
        async with trio.open_nursery() as nursery:
            far = Link(theirs, theirs.local, theirs.remote, "direct", True)
            nursery.start_soon(partial(upgrade, far, role="responder", identity=STRANGER, expected=None))
            link = Link(mine, mine.local, mine.remote, "direct", False)
            closing_one = await adopt(a.swarm, link, role="initiator", expected=b.peer)
        other = await a.swarm.dial(b.addr, fresh=True)
        later = await a.swarm.dial(b.addr, fresh=True)
        await a.swarm.close(later)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.swarm.close, closing_one)  # nobody answers: it takes the close_timeout
            await trio.testing.wait_all_tasks_blocked()
            assert not closing_one.closed.is_set()
            assert a.swarm.best(b.peer) is other
            assert await a.swarm.connect(b.peer) is other
            await a.swarm.close(other)
            assert a.swarm.best(b.peer) is None
            with pytest.raises(ConnectionLost):
                await a.swarm.open_stream(closing_one, [ECHO])
            again = await a.swarm.connect(b.peer, [b.addr])
            assert again is not closing_one
            await lives(a, b)


async def test_the_addresses_of_whoever_joins_a_dial_that_is_just_failing_are_tried() -> None:
    async with open_node() as a, open_node() as b:
        for step in range(1, 100):
            joined = trio.Event()

            async def join(when: trio.Event = joined) -> None:
                await when.wait()
                assert (await a.swarm.connect(b.peer, [b.addr])).peer == b.peer

            instrument = Steps(step, joined.set)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(join)
                await trio.testing.wait_all_tasks_blocked()
                dead = closed_port()
                trio.lowlevel.add_instrument(instrument)
                try:
                    await a.swarm.connect(b.peer, [dead])
                except BridgeError:
                    pass
                finally:
                    trio.lowlevel.remove_instrument(instrument)
                ended = not joined.is_set()
                joined.set()
            await a.swarm.close(b.peer)
            if ended:
                assert step > 10
                return
        raise AssertionError("the dial never ended")


async def test_a_link_whose_upgrade_is_cancelled_at_any_step_is_cut() -> None:
    async with open_node() as a:
        for step in range(1, 100):
            async with tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:
                far = Link(theirs, theirs.local, theirs.remote, "direct", True)

                async def respond(link: Link = far) -> None:
                    try:
                        await upgrade(link, role="responder", identity=STRANGER, expected=None)
                    except BridgeError:
                        pass

                nursery.start_soon(respond)
                link = Link(mine, mine.local, mine.remote, "direct", False)

                async def establish(link: Link = link) -> None:
                    far = STRANGER.peer_id
                    await a.swarm._pool.enter(await a.swarm.upgrader.upgrade(link, role="initiator", expected=far))

                cut = await cut_after(step, establish)
                await trio.testing.wait_all_tasks_blocked()
                assert bool(a.swarm.connections()) is not cut
                await a.swarm.close(STRANGER.peer_id)
            opened, closed = a.record.of(ConnectionOpened), a.record.of(ConnectionClosed)
            assert [event.connection for event in opened] == [event.connection for event in closed]
            if not cut:
                assert step > 5
                return
        raise AssertionError("the upgrade never ended")


async def test_nothing_is_taken_in_while_the_swarm_stops() -> None:
    async with tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:
        async with open_node() as a:
            half = await trio.open_tcp_stream("127.0.0.1", int(str(a.swarm.listen_addrs()[0]).rsplit("/", 1)[1]))
            await trio.testing.wait_all_tasks_blocked()
            far = Link(theirs, theirs.local, theirs.remote, "direct", True)
            nursery.start_soon(partial(upgrade, far, role="responder", identity=STRANGER, expected=None))
            link = Link(mine, mine.local, mine.remote, "direct", False)
            await adopt(a.swarm, link, role="initiator", expected=STRANGER.peer_id)  # never answers: the stop waits

            async def late() -> None:
                while not a.swarm._pool._stopping:
                    await trio.testing.wait_all_tasks_blocked()
                raw = TcpStream(half.socket)
                slow = Link(raw, raw.local, raw.remote, "direct", False)
                try:
                    await upgrade(slow, role="initiator", identity=Identity.generate(), expected=a.peer)
                    assert await raw.receive_some() == b""
                finally:
                    raw.abort()

            nursery.start_soon(late)
        assert len(a.record.of(ConnectionOpened)) == 1


async def test_a_stop_does_not_cut_short_a_close_that_is_under_way() -> None:
    received = bytearray()
    far: list[Connection] = []

    async def respond(raw: TcpStream) -> None:
        link = Link(raw, raw.local, raw.remote, "direct", True)
        far.append(await upgrade(link, role="responder", identity=STRANGER, expected=None))

    async def read(stream: Stream) -> None:
        with suppress(ConnectionLost):
            while True:
                received.extend(await stream.receive_some())

    async with tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:
        async with open_node() as a:
            nursery.start_soon(respond, theirs)
            link = Link(mine, mine.local, mine.remote, "direct", False)
            connection = await adopt(a.swarm, link, role="initiator", expected=STRANGER.peer_id)
            sent = 0
            while not muxed(connection)._sender.queued:  # the far end does not read yet
                stream = await connection.open_stream([ECHO], lazy=True)
                sent += stream.send_nowait(bytes(INITIAL_WINDOW))

            async def close() -> None:
                with pytest.raises(SwarmStopped):
                    await a.swarm.close(connection)

            nursery.start_soon(close)
            await trio.testing.wait_all_tasks_blocked()
            assert connection.closing
            nursery.start_soon(far[0].run, lambda stream, _: nursery.start_soon(read, stream), lambda: [ECHO])
        await far[0].closed.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(received) == sent
