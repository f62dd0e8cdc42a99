"""Listening and accepting over loopback: addresses, limits, strangers, exhausted descriptors, diverted sockets."""

from __future__ import annotations

import gc
import os
import resource
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from functools import partial
from typing import Any

import pytest
import trio

from punchbridge.addresses import Multiaddr, endpoint_of, parse
from punchbridge.config import Limits, MuxedLimits, TcpLimits, YamuxLimits
from punchbridge.errors import AddressError, BridgeError, LimitExceeded, PortInUse, StreamReset
from punchbridge.events import ConnectionClosed, ConnectionOpened, ErrorEvent, Refused
from punchbridge.identity import PeerId
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.interfaces import interface_addresses
from punchbridge.transport.tcp.sockets import AcceptedSocket
from punchbridge.wire.noise import Handshake
from tests.support.fresh import fresh
from tests.support.swarms import ECHO, LOOPBACK, Node, open_descriptors, open_node


def place(addr: Multiaddr) -> tuple[str, int]:
    endpoint = endpoint_of(addr)
    assert endpoint is not None
    return endpoint.host, endpoint.port


async def knock(node: Node) -> trio.SocketStream:
    return await trio.open_tcp_stream(*place(node.addr))


async def is_closed(stream: trio.SocketStream) -> bool:
    """True once the other side has closed or reset the connection (within 5 s)."""
    with trio.fail_after(5):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
    return True


async def is_turned_away(node: Node) -> bool:
    """True once a further socket was closed or reset; the reset may come before its opener has seen that it is open."""
    try:
        stream = await knock(node)
    except OSError:
        return True
    async with stream:
        return await is_closed(stream)


async def test_port_0_is_resolved_and_a_wildcard_expanded() -> None:
    async with open_node(parse("/ip4/0.0.0.0/tcp/0")) as a:
        addrs = a.swarm.listen_addrs()
        assert {place(addr)[0] for addr in addrs} == {str(ip) for ip in interface_addresses(4)}
        assert {place(addr)[1] for addr in addrs} == {a.swarm.listen_port(4, "tcp")[1]}  # type: ignore[index]
        assert all(place(addr)[1] for addr in addrs)
        assert addrs[-1] == parse(f"/ip4/127.0.0.1/tcp/{place(addrs[0])[1]}")


async def test_several_addresses_of_both_versions() -> None:
    async with open_node(LOOPBACK, LOOPBACK, parse("/ip6/::1/tcp/0")) as a:
        assert len(a.swarm.listen_addrs()) == 3
        four, six = a.swarm.listen_port(4, "tcp"), a.swarm.listen_port(6, "tcp")
        assert four is not None
        assert six is not None
        assert (four[0], six[0]) == ("127.0.0.1", "::1")


async def test_one_port_number_in_both_versions() -> None:
    async with open_node(parse("/ip4/0.0.0.0/tcp/0")) as a, open_node() as b:
        port = place(a.swarm.listen_addrs()[0])[1]
        await a.swarm.listen(parse(f"/ip6/::/tcp/{port}"))
        assert (a.swarm.listen_port(4, "tcp"), a.swarm.listen_port(6, "tcp")) == (("0.0.0.0", port), ("::", port))
        for host in ("ip4/127.0.0.1", "ip6/::1"):
            assert (await b.swarm.dial(parse(f"/{host}/tcp/{port}"), fresh=True)).peer == a.peer


@pytest.mark.parametrize(
    "text", ["/dns4/localhost/tcp/0", "/ip4/127.0.0.1/udp/1", "/ip4/224.0.0.1/tcp/0", "/ip4/11.0.0.1/tcp/0"]
)
async def test_what_cannot_be_listened_on(text: str) -> None:
    async with open_node() as a:
        before = a.swarm.listen_addrs()
        with pytest.raises(AddressError):
            await a.swarm.listen(parse(text))
        assert a.swarm.listen_addrs() == before


async def test_a_port_of_another_program_is_in_use_even_when_it_would_share() -> None:
    program = (
        "import socket,sys\n"
        "s=socket.socket(); s.setsockopt(1,socket.SO_REUSEADDR,1); s.setsockopt(1,socket.SO_REUSEPORT,1)\n"
        "s.bind(('127.0.0.1',0)); s.listen(); print(s.getsockname()[1],flush=True); sys.stdin.read()"
    )
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        other = await nursery.start(start)
        port = int(await other.stdout.receive_some())
        async with open_node() as a:
            with pytest.raises(PortInUse, match="another"):
                await a.swarm.listen(parse(f"/ip4/127.0.0.1/tcp/{port}"))
        await other.stdin.aclose()


async def test_a_port_can_be_taken_again_at_once_after_a_stop() -> None:
    async with open_node() as b:
        async with open_node() as a:
            addr = a.swarm.listen_addrs()[0]
            await a.swarm.dial(b.addr)
            await b.record.wait(ConnectionOpened)
        async with open_node(addr) as again:
            assert again.swarm.listen_addrs() == (addr,)


async def test_the_number_of_listeners_is_bounded() -> None:
    async with open_node(*[LOOPBACK] * 3, limits=Limits(tcp=TcpLimits(listeners=3))) as a:
        with pytest.raises(LimitExceeded, match="at most 3 "):
            await a.swarm.listen(LOOPBACK)


@pytest.mark.parametrize("limits", [{"half_open": 2}, {"connections_per_address": 2}, {"connections": 2}])
async def test_over_a_limit_the_oldest_socket_that_has_said_nothing_is_closed(limits: dict[str, Any]) -> None:
    node = open_node(**limits, half_open_grace=0.0)
    async with node as a, await knock(a) as first, await knock(a) as second, await knock(a):
        assert await is_closed(first)
        async with open_node() as b:
            assert (await b.swarm.dial(a.addr)).peer == a.peer
            assert await is_closed(second)
        assert a.swarm.refusals.counts == {next(iter(limits)): 2}


@pytest.mark.parametrize("limits", [{"half_open": 2}, {"connections_per_address": 2}, {"connections": 2}])
async def test_over_a_limit_a_socket_is_closed_at_once_when_the_others_have_spoken(limits: dict[str, Any]) -> None:
    async with open_node(**limits) as a, await knock(a) as first, await knock(a) as second:
        for stream in (first, second):
            await stream.send_all(b"\x13/multistream/1.0.0\n")
        assert await is_turned_away(a)
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with open_node() as b:
            assert (await b.swarm.dial(a.addr)).peer == a.peer


async def test_one_byte_that_nobody_has_read_yet_is_no_silence() -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener[0], await trio.open_tcp_stream(*listener[0].socket.getsockname()) as client:
        sock, name = await listener[0].socket.accept()
        accepted = AcceptedSocket(sock, name[0], TcpLimits())
        assert accepted.host == "127.0.0.1"
        assert fresh(accepted.silent)
        await client.send_all(b"\x13")
        await trio.lowlevel.wait_readable(sock)
        assert not fresh(accepted.silent)
        assert await accepted.take().receive_some() == b"\x13"
        assert not fresh(accepted.silent)
        accepted.discard()
        assert not fresh(accepted.silent)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


async def test_whoever_asks_for_handshakes_too_often_is_turned_away_and_others_are_not() -> None:
    async with open_node(handshakes_burst=3, handshakes_interval=3600.0) as a:
        for _ in range(3):
            async with open_node() as b:
                assert (await b.swarm.dial(a.addr)).peer == a.peer
        assert await is_turned_away(a)
        assert a.swarm.refusals.counts == {"handshakes": 1}
        other = await trio.open_tcp_stream(*place(a.addr), local_address="127.9.0.1")
        async with other, open_node() as b:
            await other.send_all(b"\x13/multistream/1.0.0\n\x07/noise\n")
            assert await other.receive_some()
            with pytest.raises(BridgeError):
                await b.swarm.dial(a.addr)


def handshakes() -> int:
    """How many handshakes this process has under way."""
    gc.collect()
    return sum(isinstance(one, Handshake) for one in gc.get_objects())


async def test_a_socket_that_says_nothing_costs_no_keys() -> None:
    async with open_node() as a, await knock(a) as mute, await knock(a) as half:
        before = handshakes()
        await half.send_all(b"\x13/multistream/1.0.0\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (handshakes(), a.swarm._pool.table.half_open) == (before, 2)
        await mute.send_all(b"\x13/multistream/1.0.0\n\x07/noise\n")
        assert await mute.receive_some()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert handshakes() == before + 1


async def test_what_was_turned_away_is_told_once_in_a_while_and_not_when_nothing_was() -> None:
    node = open_node(half_open=1, half_open_grace=0.0, refusals_told=0.05)
    async with node as a, await knock(a), await knock(a) as last:
        told = await a.record.wait(Refused)
        assert told.refused == {"half_open": 1}
        assert told.sources == ({"reason": "half_open", "from": "127.0.0.1", "times": 1},)
        async with await knock(a):
            assert await is_closed(last)
            await a.record.wait(Refused, 2)
        assert a.record.of(Refused) == [told, told]


async def test_mute_sockets_are_dropped_at_the_deadline_and_an_honest_peer_is_served() -> None:
    async with open_node(limits=Limits(muxed=MuxedLimits(upgrade_timeout=0.3))) as a, open_node() as b:
        mute = [await knock(a) for _ in range(20)]
        assert (await b.swarm.dial(a.addr)).peer == a.peer
        for stream in mute:
            assert await is_closed(stream)
            await stream.aclose()
        assert len(a.swarm.connections()) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a browser that found the wrong port\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 5000,
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f",
    ],
)
async def test_garbage_is_answered_by_a_close_and_harms_nobody(garbage: bytes) -> None:
    async with open_node() as a, open_node() as b, await knock(a) as stream:
        await stream.send_all(garbage)
        assert await is_closed(stream)
        assert (await b.swarm.dial(a.addr)).peer == a.peer


async def test_a_peer_that_resets_before_accept_does_not_stop_the_listener() -> None:
    async with open_node() as a, open_node() as b:
        for _ in range(20):
            with closing(socket.create_connection(place(a.addr))) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert (await b.swarm.dial(a.addr)).peer == a.peer


async def test_a_peers_connections_are_bounded() -> None:
    async with open_node(connections_per_peer=3) as a, open_node() as b:
        for _ in range(5):
            await b.swarm.dial(a.addr, fresh=True)
        await a.record.wait(ConnectionClosed, 2)
        assert {event.reason for event in a.record.of(ConnectionClosed)} == {"REPLACED"}
        assert len(a.swarm.connections(b.peer)) == 3


async def test_running_out_of_descriptors_is_told_and_outlived() -> None:
    async with open_node() as a, open_node() as b:
        client = trio.socket.socket()
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with suppress(OSError):  # it is turned away at once
                await client.connect(place(a.addr))
            event = await a.record.wait(ErrorEvent)
            with trio.fail_after(10):
                while not a.swarm.refusals.counts["files"]:  # noqa: ASYNC110 - no event tells of it at once
                    await trio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.close()
        assert event.code == "ACCEPT"
        assert "ulimit" in event.message
        assert (await b.swarm.dial(a.addr)).peer == a.peer
        assert len(a.record.of(ErrorEvent)) == 1
        assert a.swarm.refusals.counts["files"] == 1


async def test_when_files_are_short_the_oldest_idle_connection_gives_way() -> None:
    async with open_node(idle_grace=0.0, files_reserve=20) as a, open_node() as b, open_node() as c:
        first, second = [await b.swarm.dial(a.addr, fresh=True) for _ in range(2)]
        busy = await first.open_stream([ECHO])
        with trio.fail_after(10):
            while a.swarm.connections()[0].streams + a.swarm.connections()[1].streams != 1:  # noqa: ASYNC110 - identify
                await trio.sleep(0.01)
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 15, hard))
        try:
            await c.swarm.dial(a.addr)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with trio.fail_after(10):
            await second.closed.wait()
        await busy.send_all(b"x")
        assert await busy.receive_some() == b"x"
        assert (await a.record.wait(ConnectionClosed)).reason == "NO_PLACE"


async def test_a_diverter_gets_matching_sockets_untouched_and_gives_up_what_it_leaves() -> None:
    async with open_node() as a, open_node() as b:
        source = b.swarm.listen_port(4, "tcp")
        assert source is not None

        def matches(remote: Multiaddr) -> bool:
            return place(remote)[1] != source[1]

        with a.swarm.divert(matches) as sockets:
            async with await knock(a) as taken:
                got = await sockets.receive()
                assert place(got.remote)[1] == taken.socket.getsockname()[1]
                await got.send_all(b"mine")
                assert await taken.receive_some() == b"mine"
                got.abort()
            left = await knock(a)
            assert (await b.swarm.dial(a.addr)).peer == a.peer
        async with left:
            assert await is_closed(left)
        with pytest.raises(trio.ClosedResourceError):
            await sockets.receive()
        async with await knock(a) as after:
            await after.send_all(b"\x00" * 10)
            assert await is_closed(after)


async def test_sockets_that_no_puncher_takes_are_bounded() -> None:
    bounds = Limits(tcp=TcpLimits(diverted=3, diverters=4))
    async with open_node(limits=bounds) as a, AsyncExitStack() as stack:
        with a.swarm.divert(lambda _: True) as sockets:
            streams = [await stack.enter_async_context(await knock(a)) for _ in range(5)]
            assert await is_closed(streams[-1])
            assert await is_closed(streams[-2])
            assert sockets.statistics().current_buffer_used == 3
        for stream in streams:
            assert await is_closed(stream)
        with ExitStack() as diverters:
            for _ in range(4):
                diverters.enter_context(a.swarm.divert(lambda _: True))
            with pytest.raises(LimitExceeded), a.swarm.divert(lambda _: True):
                pass


async def test_sockets_dialled_and_accepted_have_the_options_of_their_node() -> None:
    async with (
        open_node(limits=Limits(tcp=TcpLimits(user_timeout=7.0, syn_ack_retries=3))) as a,
        open_node(limits=Limits(tcp=TcpLimits(user_timeout=8.5, unsent=5000))) as b,
    ):
        for dialled in (await a.swarm.dial(b.addr), await a.swarm.dial(b.addr, fresh=True)):
            assert option(dialled, socket.TCP_USER_TIMEOUT) == 7000
        for accepted in b.swarm.connections(a.peer):
            assert option(accepted, socket.TCP_USER_TIMEOUT) == 8500
            assert option(accepted, socket.TCP_NOTSENT_LOWAT) == 5000
        (listener,) = a.swarm.ports.tcp._listeners._listeners
        assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) == 3


async def test_connections_dialled_and_accepted_have_the_bounds_of_their_node() -> None:
    bounds = Limits(muxed=MuxedLimits(send_burst=1000), yamux=YamuxLimits(streams=3))
    async with open_node(limits=bounds) as a, open_node() as b, open_node() as c:
        await a.swarm.dial(b.addr)
        await c.swarm.dial(a.addr)
        for far in (b, c):
            ours = await a.swarm.open_stream(far.peer, [ECHO])
            assert ours.send_nowait(bytes(2500)) == 1000
            for _ in range(2):
                await far.swarm.open_stream(a.peer, [ECHO])
            with pytest.raises(StreamReset):
                await far.swarm.open_stream(a.peer, [ECHO])


def option(connection: Connection, name: int) -> int:
    """A TCP option of a connection's socket."""
    raw = connection._raw  # type: ignore[attr-defined]
    return int(raw.socket.getsockopt(socket.IPPROTO_TCP, name))


async def test_accepting_and_failing_leaves_no_descriptor() -> None:
    async with open_node() as a:
        await trio.testing.wait_all_tasks_blocked()
        before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
        for _ in range(30):
            async with await knock(a) as stream:
                await stream.send_all(b"\x00" * 10)
                await is_closed(stream)
        async with open_node() as b:
            for _ in range(10):
                connection = await b.swarm.dial(a.addr)
                await b.swarm.close(connection)
        await a.record.wait(ConnectionClosed, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert open_descriptors() == before
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert a.swarm.connections() == ()


async def test_peers_that_leave_in_the_middle_of_the_handshake_are_forgotten() -> None:
    async with open_node() as a, open_node() as b:
        for said in (b"", b"\x13", b"\x13/multistream/1.0.0\n", b"\x13/multistream/1.0.0\n\x07/noise\n\x00"):
            async with await knock(a) as stream:
                await stream.send_all(said)
        connection = await b.swarm.dial(a.addr)
        await trio.testing.wait_all_tasks_blocked()
        assert [one.remote for one in a.swarm.connections()] == [connection.local]


async def test_one_address_with_many_ids_does_not_take_all_places_of_a_handler() -> None:
    held: list[PeerId] = []

    async def hold(stream: Stream) -> None:
        held.append(stream.connection.peer)
        await stream.receive_some()

    async with open_node() as server, open_node() as first, open_node() as second:
        await server.swarm.handle("/hold", hold, max_streams=4, max_per_peer=2)
        for node in (first, second):
            connection = await node.swarm.dial(server.addr)
            for _ in range(2):
                with suppress(StreamReset):
                    await connection.open_stream(["/hold"])
            await connection.ping()
        assert held == [first.peer, first.peer]
