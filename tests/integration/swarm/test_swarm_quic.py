"""QUIC beside TCP in a swarm: one port number, the race of the two, limits, and what holds where QUIC is not there."""

from __future__ import annotations

import itertools
import socket
import struct
import sys
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest
import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import Endpoint, Multiaddr, addr_of, endpoint_of, parse, with_peer, with_port
from punchbridge.config import Limits, QuicLimits, Transports
from punchbridge.errors import AddressError, ConnectionLost, PortInUse, Unreachable
from punchbridge.eventhub import EventHub
from punchbridge.events import ConnectionClosed, ConnectionMoved, ConnectionOpened, Refused, TransportAbsent
from punchbridge.host.host import HostConfig, open_host
from punchbridge.identity import Identity, peer_text
from punchbridge.swarm.ports import together
from tests.support.built import NOT_BUILT
from tests.support.rebinding import Rebinding
from tests.support.session_lab import until
from tests.support.swarms import ECHO, LOOPBACK, UDP, Node, Recorder, closed_port, open_node, port_of

try:
    import punchbridge_quic as quic

    from punchbridge.transport.quic.connection import QuicConnection
except ModuleNotFoundError:
    quic = None  # type: ignore[assignment]

needs_quic = pytest.mark.skipif(quic is None, reason=NOT_BUILT)


def open_both(*listen: Multiaddr, quic: QuicLimits | None = None, **more: Any) -> AbstractAsyncContextManager[Node]:
    """A node that listens with TCP and QUIC at one number, or at the addresses given."""
    return open_node(*(listen or (LOOPBACK, UDP)), limits=Limits(quic=quic or QuicLimits()), **more)


def quic_addr(node: Node) -> Multiaddr:
    """The node's QUIC address, ending in /p2p/ID."""
    addrs = [addr for addr in node.swarm.listen_addrs() if (e := endpoint_of(addr)) is not None and e.proto == "udp"]
    return with_peer(addrs[0], node.peer)


# --- listening ----------------------------------------------------------------------------------------------


@needs_quic
async def test_both_transports_listen_at_one_number() -> None:
    async with open_both() as a:
        tcp, udp = a.swarm.listen_addrs()
        assert port_of(tcp) == port_of(udp) != 0
        assert (str(tcp), str(udp)) == (
            f"/ip4/127.0.0.1/tcp/{port_of(tcp)}",
            f"/ip4/127.0.0.1/udp/{port_of(tcp)}/quic-v1",
        )
        assert a.swarm.announced() == (tcp, udp)
        assert a.swarm.listen_port(4, "tcp") == a.swarm.listen_port(4, "udp") == ("127.0.0.1", port_of(tcp))


@needs_quic
@pytest.mark.parametrize("times", [2, 40])
async def test_a_number_that_is_taken_for_one_transport_is_left_for_another_one(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Another program takes the UDP port each time that TCP has just got its number."""
    from punchbridge.transport.quic.transport import QuicTransport

    squatters: list[socket.socket] = []
    listen = QuicTransport.listen

    async def late(self: QuicTransport, addr: Multiaddr, accept: Any) -> tuple[Multiaddr, ...]:
        if len(squatters) < times:
            squatters.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with suppress(OSError):  # one of them has it already
                squatters[-1].bind(("127.0.0.1", port_of(addr)))
        return await listen(self, addr, accept)

    monkeypatch.setattr(QuicTransport, "listen", late)
    try:
        if times > 32:  # it gives up, and nothing is left
            async with open_node() as a:
                with pytest.raises(PortInUse):
                    await a.swarm.listen(LOOPBACK, UDP)
                await trio.testing.wait_all_tasks_blocked()
                assert len(a.swarm.listen_addrs()) == 1
        else:
            async with open_both() as a:
                await trio.testing.wait_all_tasks_blocked()
                tcp, udp = a.swarm.listen_addrs()
                assert port_of(tcp) == port_of(udp)
                assert port_of(tcp) not in {one.getsockname()[1] for one in squatters}
    finally:
        for one in squatters:
            one.close()


@needs_quic
async def test_a_tcp_address_alone_means_tcp_alone() -> None:
    async with open_both(LOOPBACK) as a, open_both() as b:
        (addr,) = a.swarm.listen_addrs()
        assert a.swarm.listen_port(4, "udp") is None
        with pytest.raises(Unreachable):
            await b.swarm.dial(addr_of(Endpoint("ip4", "127.0.0.1", port_of(addr), "udp")))
        # Others are dialled over QUIC all the same.
        assert (await a.swarm.dial(quic_addr(b))).transport == "quic"


async def test_which_addresses_get_one_number() -> None:
    other, fixed, circuit = parse("/ip4/127.0.0.2/udp/0/quic-v1"), with_port(UDP, 4001), parse("/ip4/1.2.3.4/tcp/1")
    assert together([LOOPBACK, other, UDP, fixed, LOOPBACK, circuit]) == [
        (LOOPBACK, UDP), (other,), (fixed,), (LOOPBACK,), (circuit,),
    ]  # fmt: skip
    assert together([UDP, UDP, LOOPBACK]) == [(UDP, LOOPBACK), (UDP,)]


# --- dialling -----------------------------------------------------------------------------------------------


@needs_quic
async def test_a_connection_over_quic_serves_as_one_over_tcp() -> None:
    async with open_both() as a, open_both() as b:
        connection = await a.swarm.dial(quic_addr(b))
        assert (connection.transport, connection.path, connection.peer) == ("quic", "direct", b.peer)
        stream = await a.swarm.open_stream(b.peer, [ECHO])
        await stream.send_all(b"over one UDP socket")
        assert await stream.receive_some() == b"over one UDP socket"
        told = await b.record.wait(ConnectionOpened)
        assert (told.transport, told.inbound, told.local) == ("quic", True, str(connection.remote))
        assert told.remote == str(connection.local) == str(a.swarm.listen_addrs()[1])
        await a.swarm.close(connection)
        assert (await b.record.wait(ConnectionClosed)).transport == "quic"


@needs_quic
async def test_a_name_leads_to_quic_too() -> None:
    async with open_both() as a, open_both() as b:
        addr = parse(f"/dns4/localhost/udp/{port_of(quic_addr(b))}/quic-v1")
        assert (await a.swarm.dial(addr, expected=b.peer)).transport == "quic"


@needs_quic
async def test_tcp_has_a_head_start_unless_quic_worked_before() -> None:
    async with open_both(transport_stagger=30.0, dial_stagger=30.0) as a, open_both() as b:
        tcp, udp = b.swarm.listen_addrs()
        closed = closed_port()
        first = await a.swarm.connect(b.peer, [udp, tcp])
        assert first.transport == "tcp"
        await a.swarm.close(first)
        second = await a.swarm.connect(b.peer, [closed, udp])  # at once: TCP was refused
        assert second.transport == "quic"
        await a.swarm.close(second)
        assert (await a.swarm.connect(b.peer, [tcp, udp])).transport == "quic"


@needs_quic
async def test_where_tcp_says_nothing_quic_is_not_waited_for_long() -> None:
    with socket.socket() as mute:  # a queue that is full answers no further SYN
        mute.bind(("127.0.0.1", 0))
        mute.listen(0)
        place = mute.getsockname()
        fill = [socket.socket() for _ in range(4)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(place)
        async with open_both(dial_stagger=30.0) as a, open_both(with_port(UDP, place[1])) as b:
            with trio.fail_after(20):
                connection = await a.swarm.connect(b.peer, [with_port(LOOPBACK, place[1]), *b.swarm.listen_addrs()])
            assert connection.transport == "quic"
        for one in fill:
            one.close()


# --- newcomers ----------------------------------------------------------------------------------------------


@needs_quic
async def test_newcomers_over_quic_are_counted_with_those_over_tcp() -> None:
    async with open_both(connections_per_address=2, refusals_told=0.1) as a, open_both() as b, open_both() as c:
        await b.swarm.dial(a.addr)
        await b.swarm.dial(quic_addr(a), fresh=True)
        with pytest.raises(Unreachable, match="refused"):
            await c.swarm.dial(quic_addr(a))
        assert (await a.record.wait(Refused)).refused == {"connections_per_address": 1}
        for connection in a.swarm.connections():
            connection.abort("NORMAL")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await c.swarm.dial(quic_addr(a))).transport == "quic"


@needs_quic
async def test_a_denied_address_is_turned_away() -> None:
    async with open_both(access=Access.of(deny=("127.0.0.0/8",))) as a, open_both() as b:
        with pytest.raises(Unreachable, match="refused"):
            await b.swarm.dial(quic_addr(a))
        assert a.swarm.refusals.counts == {"denied": 1}


@needs_quic
async def test_with_half_of_the_places_taken_a_newcomer_shows_its_address() -> None:
    """Half-open sockets of TCP count as well, and whoever has shown its address is let in."""
    async with open_both(half_open_per_address=4) as a, open_both() as b:
        table = a.swarm._pool.table
        assert not table.crowded("127.0.0.1", trio.current_time())
        port = port_of(a.addr)
        async with await trio.open_tcp_stream("127.0.0.1", port), await trio.open_tcp_stream("127.0.0.1", port):
            await until(lambda: table.half_open == 2, 20)
            assert table.crowded("127.0.0.1", trio.current_time())
            assert not table.crowded("127.0.0.2", trio.current_time())
            assert a.swarm.ports.quic is not None
            arrived: list[bool] = []
            for place in a.swarm.ports.quic._places:
                accept = place.accept
                assert accept is not None

                def note(incoming: Any, accept: Any = accept) -> None:
                    arrived.append(incoming.silent)
                    accept(incoming)

                place.accept = note
            assert (await b.swarm.dial(quic_addr(a))).transport == "quic"
            assert arrived == [False]
            assert a.swarm.refusals.counts == {"unproven": 1}


@needs_quic
async def test_datagrams_beyond_a_sources_part_are_counted() -> None:
    async with open_both(quic=QuicLimits(waiting=8 * 1024)) as a:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as much:
            for _ in range(64):  # nothing of ours reads meanwhile
                much.sendto(b"x", ("127.0.0.1", port_of(a.addr)))
        await until(lambda: a.swarm.refusals.counts["datagrams"] > 0, 20)
        (told,) = a.swarm.refusals.most(1)
        assert (told.reason, told.prefix) == ("datagrams", "127.0.0.1")


@needs_quic
async def test_a_first_datagram_and_nothing_more_holds_a_place_for_a_while() -> None:
    async with open_both(quic=QuicLimits(handshake_timeout=0.5)) as a, open_both() as b:
        assert b.swarm.ports.quic is not None
        engine = b.swarm.ports.quic._engine()
        packet = engine.transmit(engine.connect("127.0.0.1", 9, trio.current_time()), 1, trio.current_time())
        assert packet is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as half:
            half.sendto(packet[0], ("127.0.0.1", port_of(a.addr)))
            table = a.swarm._pool.table
            await until(lambda: table.half_open == 1, 20)
            await until(lambda: table.half_open == 0, 20)


@needs_quic
async def test_a_newcomer_behind_a_burst_of_others_is_answered() -> None:
    """The kernel hands over fifty first datagrams of one sender in one read, and there are several reads in a turn. The
    engine ignores whoever finds many undecided, and would be asked again a second later only."""
    async with open_both() as a, open_both() as b:
        assert b.swarm.ports.quic is not None
        engine, now = b.swarm.ports.quic._engine(), trio.current_time()

        def first() -> tuple[int, bytes]:
            number = engine.connect("127.0.0.1", port_of(a.addr), now)
            packet = engine.transmit(number, 1, now)
            assert packet is not None
            return number, packet[0]

        burst = [b"".join(first()[1] for _ in range(50)) for _ in range(3)]
        number, mine = first()
        segments = [(socket.IPPROTO_UDP, 103, struct.pack("=H", 1200))]
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as newcomer,
        ):
            newcomer.setblocking(False)
            other.bind(("127.9.0.1", 0))
            there = ("127.0.0.1", port_of(a.addr))
            for data in burst:
                other.sendmsg((data,), segments, 0, there)
            newcomer.sendto(mine, there)  # all of it before the node has its turn
            with trio.fail_after(20):
                await trio.lowlevel.wait_readable(newcomer)
            answer = newcomer.recv(65535)
        engine.receive(answer, 0, *there, None, 0, trio.current_time())
        assert [event for event in engine.events(number) if event[0] == quic.LOST] == []


# --- peers that move -----------------------------------------------------------------------------------------


@needs_quic
async def test_a_peer_that_has_moved_is_known_by_its_new_address() -> None:
    """A NAT that lost its state: the connection stays, and what is judged by the address is judged anew."""
    async with (
        open_both(quic=QuicLimits(moved_after=0.1)) as a,
        open_both() as b,
        trio.open_nursery() as nursery,
    ):
        nat = Rebinding(("127.0.0.1", port_of(a.addr)))
        nursery.start_soon(nat.run)
        near = await b.swarm.dial(with_port(UDP, nat.port), expected=a.peer)
        (far,) = a.swarm.connections()
        before = str(far.remote)
        nat.rebind()
        await near.ping()
        moved = await a.record.wait(ConnectionMoved)
        assert (moved.before, moved.remote, moved.transport) == (before, str(far.remote), "quic")
        assert endpoint_of(far.remote) == Endpoint("ip4", *nat.outside, "udp")
        assert moved.peer == peer_text(b.peer)
        # To a network that is denied. Of the address alone nobody is turned away before it is known to be there.
        a.swarm.gater.access = Access.of(deny=("127.0.0.77/32",)) | OPEN
        assert not far.closing
        nat.rebind("127.0.0.77")
        await near.ping()
        with trio.fail_after(20):
            await far.closed.wait()
        assert far.close_reason == "NOT_ALLOWED"
        nursery.cancel_scope.cancel()


@needs_quic
async def test_a_peer_that_never_stays_anywhere_is_not_kept() -> None:
    """Else it would be judged by the address that it has left, for as long as it moves."""
    async with (
        open_both(quic=QuicLimits(moved_after=0.4, moved_most=1.0)) as a,
        open_both() as b,
        trio.open_nursery() as nursery,
    ):
        nat = Rebinding(("127.0.0.1", port_of(a.addr)))
        nursery.start_soon(nat.run)
        near = await b.swarm.dial(with_port(UDP, nat.port), expected=a.peer)
        (far,) = a.swarm.connections()
        a.swarm.gater.access = Access.of(deny=("127.0.0.77/32", "127.0.0.78/32")) | OPEN
        with trio.fail_after(20):
            for host in itertools.cycle(("127.0.0.77", "127.0.0.78")):
                nat.rebind(host)
                with suppress(ConnectionLost):
                    await near.ping()
                with trio.move_on_after(0.1):
                    await far.closed.wait()
                    break
        assert (far.close_reason, a.record.of(ConnectionMoved)) == ("MOVES", [])
        nursery.cancel_scope.cancel()


@needs_quic
async def test_an_address_where_nobody_answers_is_not_the_peers() -> None:
    """Anybody can write another one's address on a datagram."""
    async with (
        open_both() as a,
        open_both() as b,
        trio.open_nursery() as nursery,
    ):
        nat = Rebinding(("127.0.0.1", port_of(a.addr)))
        nursery.start_soon(nat.run)
        near = await b.swarm.dial(with_port(UDP, nat.port), expected=a.peer)
        (far,) = a.swarm.connections()
        assert isinstance(far, QuicConnection)
        before = far.remote
        nat.deaf = True
        nat.rebind("127.0.0.77")
        with trio.move_on_after(QuicLimits().moved_after + 2):
            while True:
                await near.ping()
                await trio.sleep(0.05)
        assert far.info().moves > 0  # the engine has tried it
        assert (far.remote, a.record.of(ConnectionMoved)) == (before, [])
        assert not far.closing
        nursery.cancel_scope.cancel()


# --- where QUIC is not there --------------------------------------------------------------------------------


async def test_switched_off_it_is_neither_listened_on_nor_dialled() -> None:
    async with open_both(LOOPBACK, transports=Transports(quic=False)) as a:
        for call in (a.swarm.listen(UDP), a.swarm.listen(LOOPBACK, UDP), a.swarm.dial(with_port(UDP, 9))):
            with pytest.raises(AddressError, match="switched off"):
                await call
        with pytest.raises(AddressError, match="switched off"):
            await a.swarm.dial(parse("/dns4/localhost/udp/9/quic-v1"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(a.swarm.listen_addrs()) == 1


async def test_without_its_engine_everything_runs_over_tcp_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "punchbridge_quic", None)
    hub = EventHub()
    record = Recorder(hub)
    async with open_host(HostConfig(Identity.generate(), (LOOPBACK,), allow_private=True), hub) as host:
        with pytest.raises(AddressError, match=r"not installed; install punchbridge\[quic\]"):
            await host.swarm.dial(with_port(UDP, 9))
        async with open_node() as b:
            assert (await host.swarm.dial(b.addr)).transport == "tcp"
    (told,) = record.of(TransportAbsent)
    assert (told.transport, "not installed" in told.message) == ("quic", True)


async def test_nothing_is_told_where_it_was_switched_off() -> None:
    hub = EventHub()
    record = Recorder(hub)
    config = HostConfig(Identity.generate(), (LOOPBACK,), transports=Transports(quic=False))
    async with open_host(config, hub):
        pass
    assert record.of(TransportAbsent) == []
