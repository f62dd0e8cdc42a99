"""QUIC connections over loopback: how they end, handshakes that fail, and the socket below."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import pairwise

import pytest
import trio
import trio.testing

from punchbridge.addresses import endpoint_of, parse
from punchbridge.config import QuicLimits
from punchbridge.errors import (
    AddressError,
    ConnectionLost,
    DialTimeout,
    NotAllowed,
    PortInUse,
    StreamReset,
    Unreachable,
    WrongPeer,
)
from punchbridge.identity import Identity
from punchbridge.tasks.fair import FairQueue
from punchbridge.wire.multistream import HEADER, line
from tests.support.built import NOT_BUILT

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

from punchbridge.transport.quic.endpoint import Stray
from tests.support.quic_pairs import Node, quic_nodes, quic_pair
from tests.support.rebinding import Rebinding
from tests.support.relay_lab import read_all
from tests.support.session_lab import until

# --- turns --------------------------------------------------------------------------------------------------


async def test_streams_of_several_connections_are_opened_in_turn() -> None:
    """Two hundred streams of each come with a few reads of the one socket: other tasks run in between."""
    async with quic_nodes(5, turns=FairQueue(1), limits=QuicLimits(streams_first=256)) as (server, *nodes):
        connections = [await node.dial(server) for node in nodes]
        far = [await server.accept() for _ in nodes]
        turns = [0]

        async def others() -> None:
            while turns[-1] < 200 * len(nodes):
                turns.append(sum(one.streams for one in far))
                await trio.lowlevel.checkpoint()

        for connection in connections:  # all of it before the server has its turn
            below = connection._line
            for _ in range(200):
                number = below.engine.open(below.number)
                assert number is not None
                below.engine.write(below.number, number, HEADER + line("/test/1.0.0"))
            below.flush()
        with trio.fail_after(60):
            await others()
        # Sixteen at once of each, the first time; then those of one connection, or two, from step to step.
        later = [number for number in turns if number > 16 * len(nodes)]
        assert max(after - before for before, after in pairwise(later)) <= 2 * 16


async def test_little_datagrams_of_others_hold_up_a_newcomer_for_few_turns() -> None:
    """The socket hands them over in the order in which they came: nobody can be served before them."""
    async with quic_nodes(2) as (server, node):
        endpoint = endpoint_of(server.addr)
        assert endpoint is not None
        engine, now = node.transport._engine(), trio.current_time()
        first = engine.transmit(engine.connect(endpoint.host, endpoint.port, now), 1, now)
        assert first is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            for data in (*[b"\x00"] * 256, first[0]):  # all of it before the server has its turn
                other.sendto(data, (endpoint.host, endpoint.port))
            turns = 0
            while not server.arrived and turns < 100:
                turns += 1
                await trio.lowlevel.checkpoint()
        assert turns <= 5


async def test_a_newcomer_is_handled_before_all_that_others_have_sent() -> None:
    async with quic_nodes(2, limits=QuicLimits(reads=1)) as (server, node):
        endpoint = endpoint_of(server.addr)
        assert endpoint is not None
        place, engine, now = (endpoint.host, endpoint.port), node.transport._engine(), trio.current_time()
        first = engine.transmit(engine.connect(*place, now), 1, now)
        assert first is not None
        with ExitStack() as stack:
            others = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(9)]
            for number in range(240):  # all of it before the server has its turn
                others[1 + number % 8].sendto(b"\x00", place)
            others[0].sendto(first[0], place)
            turns = 0
            while not server.arrived and turns < 100:
                turns += 1
                await trio.lowlevel.checkpoint()
        assert turns <= 5


async def test_a_stream_that_waits_is_opened_with_what_became_of_it() -> None:
    """Ended or given up before its turn came."""
    async with quic_pair() as pair:
        for number in range(90):
            stream = await pair.first.open_stream(["/test/1.0.0"], lazy=True)
            await stream.send_all(b"x" * 100)
            if number % 3:
                await stream.send_eof()
            else:
                stream.reset()
        with trio.fail_after(20):
            whole = 0
            while whole < 60:
                stream = await pair.nodes[1].accept_stream()
                with suppress(StreamReset):
                    whole += await read_all(stream) == b"x" * 100
                await stream.aclose()
            await until(lambda: pair.second.streams == 0, 20)


# --- ends of connections ------------------------------------------------------------------------------------


async def test_closing_delivers_what_was_ended_and_tells_both_why() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        payload = bytes(1 << 20)
        with trio.move_on_after(5):
            await first.send_all(payload)
        await first.send_eof()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.first.aclose)
            assert await read_all(second) == payload
        assert pair.first.close_reason == "NORMAL"
        await pair.second.closed.wait()
        assert pair.second.close_reason == "CLOSED_BY_PEER"
        with pytest.raises(ConnectionLost):
            await pair.second.open_stream(["/test/1.0.0"])
        with pytest.raises(ConnectionLost):
            await second.send_all(b"x")


async def test_cutting_tells_the_peer_and_ends_every_stream_with_a_loss() -> None:
    async with quic_pair() as pair:
        first, second = await pair.streams()
        pair.first.abort("TEST")
        with pytest.raises(ConnectionLost):
            await first.receive_some()
        with pytest.raises(ConnectionLost):
            await second.receive_some()
        assert (pair.first.close_reason, pair.second.close_reason) == ("TEST", "CONNECTION_LOST")
        with pytest.raises(ConnectionLost):
            await pair.first.ping()


async def test_who_is_not_let_in_is_told_so() -> None:
    async with quic_pair() as pair:
        await pair.first.aclose("NOT_ALLOWED")
        await pair.second.closed.wait()
        assert pair.second.close_reason == "NOT_ALLOWED"
        with pytest.raises(NotAllowed, match="does not let this peer in"):
            pair.second.check_alive()


async def test_a_closed_connection_leaves_nothing_at_the_engine() -> None:
    async with quic_pair() as pair:
        await pair.first.aclose()
        await pair.second.closed.wait()
        endpoints = [place.endpoint for node in pair.nodes for place in node.transport._places]
        await until(lambda: not any(one.lines or one.engine.connections() for one in endpoints), 30)


async def test_a_connection_whose_socket_is_gone_before_it_runs_ends_at_once() -> None:
    async with quic_nodes(2) as (first, second):
        connection = await first.transport.dial(second.addr, None)
        for place in first.transport._places:
            place.scope.cancel()
        await until(lambda: not first.transport._places, 30)
        await connection.run(lambda stream, protocol: None, tuple)
        assert connection.close_reason == "CONNECTION_LOST"


async def test_an_idle_connection_is_kept_by_packets_of_both_ends() -> None:
    """Each end sends, so that the mapping of a NAT in front of either one stays."""
    async with quic_pair(QuicLimits(keepalive=0.1)) as pair:
        await pair.first.ping()
        for _ in range(5):
            before = pair.first.bytes_sent, pair.second.bytes_sent
            await until(
                lambda before=before: pair.first.bytes_sent > before[0] and pair.second.bytes_sent > before[1], 30
            )
        assert not pair.first.closing
        assert not pair.second.closing


async def test_silence_ends_a_connection() -> None:
    limits = QuicLimits(idle=2.0, keepalive=0.4)
    async with quic_pair(limits) as pair:
        with trio.move_on_after(2.5):
            await pair.first.closed.wait()
        assert not pair.first.closed.is_set(), "keepalives keep it"
        for place in pair.nodes[1].transport._places:
            place.scope.cancel()
        await pair.first.closed.wait()
        assert pair.first.close_reason == "KEEPALIVE_TIMEOUT"
        assert pair.second.close_reason == "ENDPOINT_CLOSED"


# --- handshakes that fail -----------------------------------------------------------------------------------


async def test_another_peer_than_the_one_dialled() -> None:
    async with quic_nodes(2) as (first, second):
        with pytest.raises(WrongPeer):
            await first.transport.dial(second.addr, Identity.generate().peer_id)


async def test_nobody_is_there() -> None:
    async with quic_nodes(1, limits=QuicLimits(handshake_timeout=0.3)) as (node,):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            addr = parse(f"/ip4/127.0.0.1/udp/{silent.getsockname()[1]}/quic-v1")
            with pytest.raises(DialTimeout, match="no answer"):
                await node.transport.dial(addr, None)


async def test_turned_away_at_the_door() -> None:
    async with quic_nodes(2) as (first, second):
        second.judge = lambda incoming: False
        with pytest.raises(Unreachable, match="refused"):
            await first.transport.dial(second.addr, None)
        assert [one.host for one in second.arrived] == ["127.0.0.1"]
        assert second.arrived[0].silent
        assert second.arrived[0].room is None


async def test_our_own_address_is_not_dialled() -> None:
    async with quic_nodes(1) as (node,):
        with pytest.raises(AddressError, match="our own"):
            await node.transport.dial(node.addr, None)


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/tcp/1", "/dns/example.org/udp/1/quic-v1", "/ip4/127.0.0.1/udp/1"])
async def test_addresses_of_another_kind(text: str) -> None:
    async with quic_nodes(1) as (node,):
        assert not node.transport.handles(parse(text))
        for call in (node.transport.dial(parse(text), None), node.transport.listen(parse(text), node.accepted)):
            with pytest.raises(AddressError):
                await call


async def test_a_port_that_is_taken() -> None:
    async with quic_nodes(1) as (node,):
        with pytest.raises(PortInUse):
            await node.transport.listen(node.addr, node.accepted)


async def test_many_handshakes_under_way_ask_newcomers_for_proof() -> None:
    """With a place taken, the next one gets a Retry, shows its address, and is let in all the same."""
    async with quic_nodes(3, limits=QuicLimits(retry_above=1)) as (first, second, third):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as half:
            half.bind(("127.0.0.1", 0))
            endpoint = first.transport._places[0].endpoint
            number = endpoint.engine.connect("127.0.0.1", 9, trio.current_time())
            packet = endpoint.engine.transmit(number, 1, trio.current_time())
            assert packet is not None
            host, port = third.transport.port(4) or ("", 0)
            half.sendto(packet[0], (host, port))  # a first datagram, and nothing after it
            await until(lambda: bool(third.arrived), 30)
            await second.dial(third)
        assert [one.silent for one in third.arrived] == [True, False]
        assert third.transport._under_way == 1


async def test_a_dial_that_is_cancelled_leaves_nothing() -> None:
    async with quic_nodes(1) as (node,):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            addr = parse(f"/ip4/127.0.0.1/udp/{silent.getsockname()[1]}/quic-v1")
            with trio.move_on_after(0.1):
                await node.transport.dial(addr, None)
        endpoint = node.transport._places[0].endpoint
        await until(lambda: not endpoint.lines, 30)


# --- the socket ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening_for_strays() -> AsyncIterator[tuple[Node, socket.socket, trio.MemoryReceiveChannel[Stray]]]:
    """A node, a socket that is connected to its port, and the datagrams from there that are nothing to the engine."""
    async with quic_nodes(1) as (node,):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.connect(node.transport.port(4) or ("", 0))
            source = other.getsockname()
            with node.transport.divert(4, lambda host, port: (host, port) == source) as strays:
                yield node, other, strays


async def test_datagrams_that_are_not_quic_go_to_whoever_waits_for_them() -> None:
    async with listening_for_strays() as (node, other, strays):
        source = other.getsockname()
        other.send(b"\x3fpunch")
        stray = await strays.receive()
        assert (stray.data, stray.host, stray.port) == (b"\x3fpunch", *source)
        for _ in range(200):  # more than are kept
            other.send(b"\x00")
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert strays.statistics().current_buffer_used <= QuicLimits().diverted
        node.transport._places[0].endpoint.send_stray(b"\x01answer", *source)
        assert await trio.to_thread.run_sync(other.recv, 100) == b"\x01answer"


async def test_any_datagram_that_is_nothing_to_the_engine_opens_a_way() -> None:
    """Others open a NAT with random bytes, go with 64 of them: three quarters of these look like QUIC's at first."""
    async with listening_for_strays() as (_, other, strays):
        for first in range(256):
            other.send(bytes((first,)) + secrets.token_bytes(63))
            with trio.fail_after(10):
                assert (await strays.receive()).data[0] == first


async def test_a_wildcard_answers_from_the_address_that_was_asked() -> None:
    async with quic_nodes(2) as (first, second):
        found = await second.transport.listen(parse("/ip4/0.0.0.0/udp/0/quic-v1"), second.accepted)
        port = endpoint_of(found[0])
        assert port is not None
        # Any address of 127/8 is loopback's; the dialler takes an answer from that one alone.
        second.addr = parse(f"/ip4/127.0.0.2/udp/{port.port}/quic-v1")
        connection = await first.dial(second)
        accepted = await second.accept()
        assert connection.remote == accepted.local == second.addr
        assert connection.local == accepted.remote == first.addr


async def test_a_dial_without_a_listener_and_over_ipv6() -> None:
    async with quic_nodes(2) as (first, second):
        (second.addr,) = await second.transport.listen(parse("/ip6/::1/udp/0/quic-v1"), second.accepted)
        assert first.transport.port(6) is None
        connection = await first.dial(second)
        assert await connection.ping() > 0
        assert first.transport.port(6) is None
        assert [str(one) for one in first.transport.addrs()] == [str(first.addr)]


async def test_an_interface_that_takes_no_segments_is_sent_single_datagrams() -> None:
    async with quic_pair() as pair:
        for node in pair.nodes:
            for place in node.transport._places:
                place.endpoint.socket.segments = 1
        first, second = await pair.streams()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await first.send_all(bytes(1 << 20))
                await first.send_eof()

            nursery.start_soon(send)
            assert len(await read_all(second)) == 1 << 20


async def test_the_peers_address_may_change() -> None:
    """A NAT on the way that has lost its state: the same connection from another port, nothing lost."""
    async with quic_nodes(2) as (first, second), trio.open_nursery() as nursery:
        real = second.transport.port(4)
        assert real is not None
        nat = Rebinding(real)
        nursery.start_soon(nat.run)
        second.addr = parse(f"/ip4/127.0.0.1/udp/{nat.port}/quic-v1")
        connection = await first.dial(second)
        accepted = await second.accept()
        stream = await connection.open_stream(["/test/1.0.0"])
        peer = await second.accept_stream()
        before = accepted.info().port
        for number in range(5):
            nat.rebind()
            await stream.send_all(bytes((number,)))
            assert await peer.receive_some() == bytes((number,))
            await peer.send_all(bytes((number + 100,)))
            assert await stream.receive_some() == bytes((number + 100,))
        assert accepted.info().moves == 5
        assert accepted.info().port != before
        assert not connection.closing
        nursery.cancel_scope.cancel()
