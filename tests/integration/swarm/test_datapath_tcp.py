"""TCP on loopback: one port for listening and dialling, options, names, failures."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from punchbridge.addresses import Multiaddr, parse
from punchbridge.config import TcpLimits
from punchbridge.errors import AddressError, DialTimeout, PortInUse, StreamReset, Unreachable
from punchbridge.transport.resolve import resolve
from punchbridge.transport.tcp.sockets import TcpStream, bound_socket, connect, listen_socket
from tests.support.pairs import free_port, tcp_pair

LOCAL = parse("/ip4/127.0.0.1/tcp/0")


def port_of(sock: trio.socket.SocketType) -> int:
    port: int = sock.getsockname()[1]
    return port


async def test_a_dial_leaves_from_the_listening_port() -> None:
    with listen_socket(LOCAL) as ours, listen_socket(LOCAL) as theirs:
        target = parse(f"/ip4/127.0.0.1/tcp/{port_of(theirs)}")
        stream = await connect(target, source=("127.0.0.1", port_of(ours)))
        accepted = TcpStream((await theirs.accept())[0])
        assert str(stream.local) == str(accepted.remote) == f"/ip4/127.0.0.1/tcp/{port_of(ours)}"
        assert str(stream.remote) == str(accepted.local) == str(target)
        # The listening socket still accepts, from the very port that was dialled from.
        back = await connect(parse(f"/ip4/127.0.0.1/tcp/{port_of(ours)}"))
        third = TcpStream((await ours.accept())[0])
        for one in (stream, accepted, back, third):
            await one.aclose()


async def test_the_same_connection_twice_says_why() -> None:
    with listen_socket(LOCAL) as ours, listen_socket(LOCAL) as theirs:
        target = parse(f"/ip4/127.0.0.1/tcp/{port_of(theirs)}")
        source = ("127.0.0.1", port_of(ours))
        stream = await connect(target, source=source)
        with pytest.raises(Unreachable, match="assign requested address"):
            await connect(target, source=source)
        stream.abort()


async def test_options() -> None:
    async with tcp_pair() as pair:
        for stream in pair:
            sock = stream.socket
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


async def test_ipv6_takes_no_ipv4() -> None:
    with listen_socket(parse("/ip6/::1/tcp/0")) as six:
        stream = await connect(parse(f"/ip6/::1/tcp/{port_of(six)}"))
        accepted = TcpStream((await six.accept())[0])
        assert str(accepted.local) == f"/ip6/::1/tcp/{port_of(six)}"
        stream.abort()
        accepted.abort()
    with (
        listen_socket(parse("/ip6/::/tcp/0")) as six,
        listen_socket(parse(f"/ip4/0.0.0.0/tcp/{port_of(six)}")) as four,
    ):
        assert port_of(four) == port_of(six)


async def test_a_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortInUse, match="choose another port"):
            listen_socket(parse(f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"))


async def test_a_port_that_another_reuseport_listener_holds_is_in_use() -> None:
    with listen_socket(LOCAL) as first, pytest.raises(PortInUse):
        listen_socket(parse(f"/ip4/127.0.0.1/tcp/{port_of(first)}"))


@pytest.mark.parametrize("addr", ["/ip4/192.0.2.1/tcp/0", "/dns4/localhost/tcp/0", "/ip4/127.0.0.1/udp/1"])
async def test_an_address_nobody_can_listen_on(addr: str) -> None:
    with pytest.raises(AddressError):
        listen_socket(parse(addr))


async def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match="refused") as caught:
        await connect(parse(f"/ip4/127.0.0.1/tcp/{free_port()}"))
    assert type(caught.value) is Unreachable


async def test_a_full_backlog_times_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(0)
        addr = parse(f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}")
        streams: list[TcpStream] = []

        async def dial_on() -> None:
            for _ in range(5):
                streams.append(await connect(addr, TcpLimits(connect_timeout=0.3)))

        with pytest.raises(DialTimeout, match=r"0\.3 s"):
            await dial_on()
        for stream in streams:
            stream.abort()


async def test_the_sources_port_is_taken_by_a_stranger() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        source = other.getsockname()
        with pytest.raises(Unreachable, match="cannot dial from"):
            await connect(parse("/ip4/127.0.0.1/tcp/9"), source=source)


async def test_a_bound_socket_shares_the_listening_port() -> None:
    with listen_socket(LOCAL) as ours, bound_socket(socket.AF_INET, "127.0.0.1", port_of(ours)) as sock:
        assert sock.getsockname() == ours.getsockname()


async def test_a_reset_is_no_end() -> None:
    async with tcp_pair() as (ours, theirs):
        theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.abort()
        with pytest.raises(StreamReset):
            await ours.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x")


async def test_names() -> None:
    found = await resolve(parse("/dns4/localhost/tcp/4001"))
    assert [str(addr) for addr in found] == ["/ip4/127.0.0.1/tcp/4001"]
    unchanged = parse("/ip4/192.0.2.1/tcp/4001")
    assert await resolve(unchanged) == (unchanged,)


async def test_what_follows_a_name_stays() -> None:
    peer = "/p2p/12D3KooWDPTJmhjMqcXKDy3573RUM4mCoZVUxguULxdNud9z6f5t"
    found = await resolve(parse(f"/dns4/localhost/tcp/4001{peer}/p2p-circuit"))
    assert found == (Multiaddr(f"/ip4/127.0.0.1/tcp/4001{peer}/p2p-circuit"),)


async def test_an_unknown_name() -> None:
    with pytest.raises(Unreachable, match="no-such-host"):
        await resolve(parse("/dns4/no-such-host.invalid/tcp/1"))
