"""Dialling over loopback: source ports, identities, deadlines, races, sharing, cancellation."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import trio

from punchbridge.addresses import Multiaddr, parse, with_peer
from punchbridge.config import Limits, MuxedLimits, TcpLimits
from punchbridge.errors import (
    AddressError,
    AuthenticationFailed,
    BridgeError,
    DialTimeout,
    NegotiationFailed,
    Unreachable,
    WrongPeer,
)
from punchbridge.events import ConnectionOpened
from punchbridge.identity import Identity, peer_text
from punchbridge.transport.interfaces import interface_addresses
from punchbridge.transport.link import Link
from tests.support.swarms import ECHO, LOOPBACK, adopt, closed_port, open_descriptors, open_node, port_of

STRANGER = Identity.generate().peer_id


@contextmanager
def mute_listener() -> Iterator[Multiaddr]:
    """A port that accepts (in the kernel) and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield parse(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")


@pytest.mark.parametrize("listen", ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0", "/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"])
async def test_a_dial_leaves_from_the_listening_port_and_echoes(listen: str) -> None:
    async with open_node(parse(listen)) as a, open_node(parse(listen)) as b:
        connection = await a.swarm.dial(b.addr)
        version = 6 if "ip6" in listen else 4
        bound = a.swarm.listen_port(version, "tcp")
        assert bound is not None
        assert port_of(connection.local) == bound[1]
        assert (connection.peer, connection.path, connection.role) == (b.peer, "direct", "initiator")
        assert connection.transport == "tcp"
        theirs = b.swarm.connections()[0]
        assert (theirs.peer, theirs.role, theirs.remote) == (a.peer, "responder", connection.local)
        stream = await a.swarm.open_stream(b.peer, [ECHO])
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


@pytest.mark.parametrize("tail", ["/ws", "/tls/ws", "/wss", "/http"])
async def test_what_is_not_plain_tcp_is_refused_before_a_packet_leaves(tail: str) -> None:
    async with open_node() as a:
        with mute_listener() as there:
            with pytest.raises(AddressError, match=f"{tail} is not spoken"):
                await a.swarm.dial(with_peer(parse(f"{there}{tail}"), STRANGER))
            with pytest.raises(AddressError, match=f"{tail} is not spoken"):
                await a.swarm.listen(parse(f"/ip4/127.0.0.1/tcp/0{tail}"))
            with pytest.raises(Unreachable, match=f"{tail} is not spoken"):
                await a.swarm.connect(STRANGER, [parse(f"{there}{tail}"), closed_port()])
        assert a.swarm.connections() == ()


async def test_a_dial_without_a_peer_id_meets_the_connection_that_stands_at_the_endpoint() -> None:
    async with open_node() as a, open_node() as b:
        first = await a.swarm.dial(b.swarm.listen_addrs()[0])
        assert await a.swarm.dial(b.swarm.listen_addrs()[0]) is first
        theirs = b.swarm.connections()[0]
        assert await b.swarm.dial(theirs.remote) is theirs


async def test_a_second_connection_to_the_same_port_is_made_from_another_port() -> None:
    async with open_node() as a, open_node() as b:
        first = await a.swarm.dial(b.addr)
        assert await a.swarm.dial(b.addr) is first
        second = await a.swarm.dial(b.addr, fresh=True)
        assert second is not first
        assert port_of(second.local) != port_of(first.local)
        assert a.swarm.connections(b.peer) == (first, second)
        assert a.swarm.best(b.peer) is second


async def test_an_address_without_peer_reuses_the_live_connection_when_the_port_is_taken() -> None:
    async with open_node() as a, open_node() as b:
        first = await a.swarm.dial(b.addr)
        assert await a.swarm.dial(b.swarm.listen_addrs()[0]) is first
        assert len(b.swarm.connections()) == 1


async def test_a_listener_on_loopback_does_not_break_dials_elsewhere() -> None:
    outside = next((ip for ip in interface_addresses(4) if not ip.is_loopback), None)
    if outside is None:
        pytest.skip("this machine has only loopback")
    async with open_node() as a, open_node(parse(f"/ip4/{outside}/tcp/0")) as b:
        connection = await a.swarm.dial(b.addr)
        assert connection.peer == b.peer


async def test_ourselves_are_never_dialled() -> None:
    async with open_node(parse("/ip4/0.0.0.0/tcp/0")) as a:
        bound = a.swarm.listen_port(4, "tcp")
        assert bound is not None
        for text in (
            f"/ip4/127.0.0.1/tcp/{bound[1]}",
            f"/ip4/127.9.9.9/tcp/{bound[1]}",
            f"/dns4/localhost/tcp/{bound[1]}",
        ):
            with pytest.raises(BridgeError, match="our own listening address"):
                await a.swarm.dial(parse(text))
        with pytest.raises(AddressError, match="this node itself"):
            await a.swarm.dial(with_peer(parse("/ip4/11.0.0.1/tcp/1"), a.peer))
        with pytest.raises(AddressError, match="this node itself"):
            await a.swarm.connect(a.peer, [parse("/ip4/11.0.0.1/tcp/1")])
        assert a.swarm.connections() == ()


async def test_our_own_key_on_the_other_side_is_refused() -> None:
    identity = Identity.generate()
    async with open_node(identity=identity) as a, open_node(identity=identity) as b:
        with pytest.raises(AuthenticationFailed):
            await a.swarm.dial(b.swarm.listen_addrs()[0])
        assert a.swarm.connections() == b.swarm.connections() == ()


async def test_another_identity_than_expected_is_refused_by_type() -> None:
    async with open_node() as a, open_node() as b:
        with pytest.raises(WrongPeer):
            await a.swarm.dial(with_peer(b.swarm.listen_addrs()[0], STRANGER))
        with pytest.raises(WrongPeer):
            await a.swarm.dial(b.swarm.listen_addrs()[0], expected=STRANGER)
        with pytest.raises(AddressError, match="another peer"):
            await a.swarm.dial(b.addr, expected=STRANGER)
        assert a.swarm.connections() == ()


async def test_names_are_resolved_by_the_system() -> None:
    async with open_node() as a, open_node() as b:
        addr = parse(f"/dns4/localhost/tcp/{port_of(b.addr)}/p2p/{peer_text(b.peer)}")
        connection = await a.swarm.dial(addr)
        assert connection.peer == b.peer
        with pytest.raises(Unreachable, match="invalid"):
            await a.swarm.dial(parse(f"/dns4/host.invalid/tcp/1/p2p/{peer_text(STRANGER)}"))


@pytest.mark.parametrize(
    "text", ["/ip4/0.0.0.0/tcp/5", "/ip4/127.0.0.1/tcp/0", "/ip4/224.0.0.1/tcp/5", "/ip4/127.0.0.1/udp/5"]
)
async def test_what_cannot_be_dialled_is_an_address_error(text: str) -> None:
    async with open_node() as a:
        with pytest.raises(AddressError):
            await a.swarm.dial(parse(text))


async def test_a_circuit_address_without_a_relay_client_says_so() -> None:
    addr = parse(
        f"/ip4/127.0.0.1/tcp/5/p2p/{peer_text(STRANGER)}/p2p-circuit/p2p/{peer_text(Identity.generate().peer_id)}"
    )
    async with open_node() as a:
        with pytest.raises(AddressError, match="no relay client"):
            await a.swarm.dial(addr)
        with pytest.raises(AddressError, match="no relay client"):
            await a.swarm.reserve(addr)


async def test_every_failure_is_told_for_each_address() -> None:
    dead = [closed_port(), closed_port()]
    async with open_node() as a:
        with pytest.raises(Unreachable) as caught:
            await a.swarm.connect(STRANGER, dead)
        assert len(caught.value.attempts) == 2
        assert all(any(str(addr) in line for line in caught.value.attempts) for addr in dead)
        with pytest.raises(Unreachable, match="no address is known"):
            await a.swarm.connect(STRANGER)


async def test_a_mute_peer_is_given_up_at_the_upgrade_deadline() -> None:
    with mute_listener() as addr:
        async with open_node(limits=Limits(muxed=MuxedLimits(upgrade_timeout=0.2))) as a:
            with pytest.raises(DialTimeout):
                await a.swarm.dial(addr)
            assert a.swarm.connections() == ()


class Names(trio.abc.HostnameResolver):
    """A resolver that knows six addresses of every name, all of this machine, and may never answer."""

    def __init__(self, *, mute: bool = False) -> None:
        self.mute = mute

    async def getaddrinfo(self, host: object, port: object, *rest: int) -> list[Any]:
        if self.mute:
            await trio.sleep_forever()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in range(2, 8)]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise OSError(flags, str(sockaddr))


async def test_a_name_counts_as_so_many_of_its_addresses() -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    addr = parse(str(closed_port()).replace("/ip4/127.0.0.1", "/dns4/many.example"))
    async with open_node(limits=Limits(tcp=TcpLimits(resolved=2))) as a:
        with pytest.raises(Unreachable) as caught:
            await a.swarm.dial(addr)
    assert [f"127.0.0.{last}" in line for last, line in enumerate(caught.value.attempts, 2)] == [True, True]


async def test_a_resolver_that_does_not_answer_is_given_up() -> None:
    trio.socket.set_custom_hostname_resolver(Names(mute=True))
    async with open_node(limits=Limits(tcp=TcpLimits(resolve_timeout=0.1))) as a:
        with pytest.raises(Unreachable, match=r"longer than 0\.1 s"):
            await a.swarm.dial(parse("/dns4/mute.example/tcp/1"))


async def test_a_race_is_won_past_a_mute_address_and_a_dead_one() -> None:
    with mute_listener() as mute:
        async with open_node() as a, open_node() as b:
            started = trio.current_time()
            connection = await a.swarm.connect(b.peer, [mute, closed_port(), b.swarm.listen_addrs()[0]])
            assert connection.peer == b.peer
            assert trio.current_time() - started < 5
            assert a.swarm.connections() == (connection,)


async def test_a_race_that_two_addresses_win_at_once_keeps_one() -> None:
    async with open_node(dial_stagger=0) as a, open_node(*[LOOPBACK] * 8) as b:
        for _ in range(5):
            connection = await a.swarm.connect(b.peer, b.swarm.listen_addrs())
            await trio.testing.wait_all_tasks_blocked()
            assert a.swarm.connections() == (connection,)
            await a.swarm.close(b.peer)


async def test_a_single_address_waits_for_no_stagger() -> None:
    async with open_node(dial_stagger=1000) as a, open_node() as b:
        with trio.fail_after(5):
            await a.swarm.connect(b.peer, [closed_port(), b.swarm.listen_addrs()[0]])


async def test_concurrent_dials_share_one_connection() -> None:
    got = []
    async with open_node() as a, open_node() as b:

        async def one(use_connect: bool) -> None:
            if use_connect:
                got.append(await a.swarm.connect(b.peer, [b.addr]))
            else:
                got.append(await a.swarm.dial(b.addr))

        for use_connect in (True, False):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(one, use_connect)
            assert len(set(map(id, got))) == 1
            await a.swarm.close(b.peer)
            got.clear()
        assert len(a.record.of(ConnectionOpened)) == 2


async def test_a_second_caller_adds_its_addresses_to_the_running_dial() -> None:
    with mute_listener() as mute:
        async with open_node() as a, open_node() as b, trio.open_nursery() as nursery:
            nursery.start_soon(a.swarm.connect, b.peer, [mute])
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5):
                connection = await a.swarm.connect(b.peer, [b.addr])
            assert a.swarm.connections(b.peer) == (connection,)


async def test_one_caller_leaving_does_not_end_a_shared_dial() -> None:
    with mute_listener() as mute:
        async with open_node() as a, open_node() as b, trio.open_nursery() as nursery:
            leaving = trio.CancelScope()

            async def leaver() -> None:
                with leaving:
                    await a.swarm.connect(b.peer, [mute])

            nursery.start_soon(leaver)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(a.swarm.connect, b.peer, [b.addr])
            leaving.cancel()
        assert leaving.cancelled_caught


async def test_a_cancelled_dial_leaves_no_socket_and_no_task() -> None:
    with mute_listener() as mute:
        async with open_node() as a:
            await trio.testing.wait_all_tasks_blocked()
            before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
            for fresh in (False, True):
                with trio.move_on_after(0.1) as scope:
                    await a.swarm.dial(mute, expected=STRANGER, fresh=fresh)
                assert scope.cancelled_caught
                await trio.testing.wait_all_tasks_blocked()
                assert open_descriptors() == before
                assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_stream_for_an_unknown_protocol_is_refused_by_type_and_not_connected_is_unreachable() -> None:
    async with open_node() as a, open_node() as b:
        with pytest.raises(Unreachable, match="not connected"):
            await a.swarm.open_stream(b.peer, [ECHO])
        connection = await a.swarm.dial(b.addr)
        with pytest.raises(NegotiationFailed):
            await a.swarm.open_stream(b.peer, ["/test/none/1"])
        stream = await a.swarm.open_stream(connection, ["/test/none/1", ECHO])
        assert stream.protocol == ECHO


async def test_a_swarm_that_does_not_listen_dials_from_any_port() -> None:
    async with open_node() as b, open_node(LOOPBACK) as a:
        # a listens on IPv4 only; an IPv6 dial has no listening port to leave from
        await b.swarm.listen(parse("/ip6/::1/tcp/0"))
        assert a.swarm.listen_port(6, "tcp") is None
        six = next(addr for addr in b.swarm.listen_addrs() if "ip6" in str(addr))
        assert (await a.swarm.dial(six)).peer == b.peer


async def test_two_nodes_that_dial_each_other_at_one_moment_find_together() -> None:
    """A simultaneous open leaves an initiator at either end of one TCP connection; here it is made by hand."""
    async with open_node() as a, open_node() as b, trio.open_nursery() as nursery:
        with b.swarm.divert(lambda remote: port_of(remote) == port_of(a.addr)) as sockets:

            async def also_initiate() -> None:
                tcp = await sockets.receive()
                link = Link(raw=tcp, local=tcp.local, remote=tcp.remote, path="direct", inbound=False)
                with pytest.raises(BridgeError):
                    await adopt(b.swarm, link, role="initiator", expected=a.peer)

            nursery.start_soon(also_initiate)
            connection = await a.swarm.dial(b.addr)
        assert connection.peer == b.peer
        assert port_of(connection.local) != port_of(a.addr)
