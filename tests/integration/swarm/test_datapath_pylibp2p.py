"""Our data path against a stock py-libp2p host: noise, yamux, both roles, echo, half-close, reset."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import trio
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from punchbridge.errors import NegotiationFailed, StreamReset, WrongPeer
from punchbridge.identity import Identity
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.upgrade import upgrade
from punchbridge.transport.tcp.sockets import TcpStream, connect, listen_socket
from tests.support.stock_host import ECHO, ONE_WAY, RESET, Stock, make_host, read_all_or_some, stock_host, theirs


@asynccontextmanager
async def dialled(stock: Stock) -> AsyncIterator[Connection]:
    tcp = await connect(stock.addr)
    link = Link(tcp, tcp.local, tcp.remote, "direct", False)
    connection = await upgrade(link, role="initiator", identity=Identity.generate(), expected=stock.peer)
    async with trio.open_nursery() as nursery:
        await nursery.start(connection.run, lambda stream, _: stream.abort(), lambda: ())
        yield connection
        connection.abort("TEST_OVER")


async def read_to_end(stream: Stream) -> bytes:
    out = bytearray()
    while data := await stream.receive_some():
        out += data
    return bytes(out)


async def test_echo_and_half_close_as_initiator() -> None:
    async with stock_host() as stock, dialled(stock) as connection:
        assert connection.peer == stock.peer
        stream = await connection.open_stream(["/not/there", ECHO])
        assert stream.protocol == ECHO
        payload = os.urandom(1_000_000)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(payload)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await read_to_end(stream) == payload
        assert await connection.ping() > 0


async def test_answer_after_our_half_close() -> None:
    async with stock_host() as stock, dialled(stock) as connection:
        stream = await connection.open_stream([ONE_WAY], lazy=True)
        await stream.send_all(b"x" * 100_000)
        await stream.send_eof()
        assert await read_to_end(stream) == b"got 100000"
        assert await stock.handled.receive() == b"x" * 100_000


async def test_reset_of_the_peer_is_not_an_end() -> None:
    async with stock_host() as stock, dialled(stock) as connection:
        stream = await connection.open_stream([RESET])
        await stream.send_all(b"push")
        with pytest.raises(StreamReset):
            await read_to_end(stream)


async def test_refused_protocol() -> None:
    async with stock_host() as stock, dialled(stock) as connection:
        with pytest.raises(NegotiationFailed):
            await connection.open_stream(["/not/there/1", "/not/there/2"])
        lazy = await connection.open_stream(["/not/there/3"], lazy=True)
        await lazy.send_all(b"too early")
        with pytest.raises(NegotiationFailed):
            await lazy.receive_some()


async def test_wrong_peer_is_refused() -> None:
    async with stock_host() as stock:
        tcp = await connect(stock.addr)
        link = Link(tcp, tcp.local, tcp.remote, "direct", False)
        other = Identity.generate().peer_id
        with pytest.raises(WrongPeer):
            await upgrade(link, role="initiator", identity=Identity.generate(), expected=other)
        assert tcp.socket.fileno() == -1


async def test_as_responder() -> None:
    ours = Identity.generate()
    host = make_host()
    accepted: list[Connection] = []
    with listen_socket(Multiaddr("/ip4/127.0.0.1/tcp/0")) as listener:
        port = listener.getsockname()[1]
        async with host.run(listen_addrs=[]), trio.open_nursery() as nursery:

            async def echo(stream: Stream) -> None:
                async with aclosing(stream):
                    while data := await stream.receive_some():
                        await stream.send_all(data)
                    await stream.send_eof()

            async def serve() -> None:
                tcp = TcpStream((await listener.accept())[0])
                link = Link(tcp, tcp.local, tcp.remote, "direct", True)
                connection = await upgrade(link, role="responder", identity=ours, expected=None)
                accepted.append(connection)
                await connection.run(lambda stream, _: nursery.start_soon(echo, stream), lambda: (ECHO,))

            nursery.start_soon(serve)
            await host.connect(PeerInfo(theirs(ours.peer_id), [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]))
            assert accepted[0].peer.to_bytes() == host.get_id().to_bytes()
            stream = await host.new_stream(theirs(ours.peer_id), [ECHO])
            payload = os.urandom(300_000)
            received = bytearray()
            async with trio.open_nursery() as both:

                async def send() -> None:
                    await stream.write(payload)
                    await stream.close()

                both.start_soon(send)
                while data := await read_all_or_some(stream):
                    received += data
            assert bytes(received) == payload
            await host.disconnect(theirs(ours.peer_id))
            await accepted[0].closed.wait()
            nursery.cancel_scope.cancel()
