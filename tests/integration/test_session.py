"""Sessions over real hosts on loopback: moving, dying and coming back of what is below, with nothing lost above."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from bridge import addresses
from bridge.addresses import Multiaddr, with_peer
from bridge.behaviours.host import HostConfig
from bridge.errors import NegotiationFailed, StreamReset
from bridge.events import Event, EventHub, SessionSwitched
from bridge.identity import Identity, PeerId
from bridge.session import SESSION_PROTOCOL, SessionStream
from bridge.session.host import SessionHost, open_session_host
from bridge.swarm.connection import Connection

SERVICE = "/test/echo/1.0.0"


@dataclass
class Pair:
    dialler: SessionHost
    acceptor: SessionHost
    events: list[Event]

    @property
    def addr(self) -> Multiaddr:
        return with_peer(self.acceptor.swarm.listen_addrs()[0], self.peer)

    @property
    def peer(self) -> PeerId:
        return self.acceptor.swarm.peer

    async def connect(self) -> Connection:
        return await self.dialler.swarm.dial(self.addr, fresh=True)

    async def open(self, service: str = SERVICE) -> SessionStream:
        connection = await self.connect()
        return await self.dialler.sessions.open(connection, service, route=Route(self.peer, self.addr), policy="any")

    def switches(self) -> list[SessionSwitched]:
        return [event for event in self.events if isinstance(event, SessionSwitched)]


@dataclass(frozen=True)
class Route:
    peer: PeerId
    addr: Multiaddr | None


def config() -> HostConfig:
    listen = (addresses.parse("/ip4/127.0.0.1/tcp/0"),)
    return HostConfig(Identity.generate(), listen=listen, allow_private=True, autonat=False, punch=False)


async def echo(stream: SessionStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    hub, events = EventHub(), []
    hub.subscribe(events.append)
    async with open_session_host(config(), hub) as dialler, open_session_host(config(), EventHub()) as acceptor:
        acceptor.sessions.serve(SERVICE, echo)
        yield Pair(dialler, acceptor, events)


async def read_exactly(stream: SessionStream, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        data = await stream.receive_some(count - len(got))
        assert data
        got += data
    return bytes(got)


async def until(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_echo_and_clean_end() -> None:
    async with pair() as both:
        stream = await both.open()
        await stream.send_all(b"hello")
        assert await read_exactly(stream, 5) == b"hello"
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await stream.aclose()
        await until(lambda: both.dialler.sessions.count == both.acceptor.sessions.count == 0)


async def test_known_by_identify() -> None:
    async with pair() as both:
        connection = await both.connect()
        assert await both.dialler.sessions.supported_by(connection)
        assert SESSION_PROTOCOL in connection.identify.protocols


async def test_session_survives_the_death_of_every_connection() -> None:
    async with pair() as both:
        stream = await both.open()
        for number in range(5):
            message = b"message %d" % number
            await stream.send_all(message)
            assert await read_exactly(stream, len(message)) == message
            for connection in both.dialler.swarm.connections(both.peer):
                connection.abort("CUT")
        await stream.send_all(b"last")
        assert await read_exactly(stream, 4) == b"last"
        assert both.switches()[0].reason == "OPENED"
        assert sum(not event.planned for event in both.switches()) >= 5


async def test_dead_acceptor_side_is_noticed_and_replaced() -> None:
    async with pair() as both:
        stream = await both.open()
        await stream.send_all(b"one")
        assert await read_exactly(stream, 3) == b"one"
        for connection in both.acceptor.swarm.connections():
            connection.abort("CUT")
        await stream.send_all(b"two")
        assert await read_exactly(stream, 3) == b"two"


async def test_unknown_service_is_a_typed_refusal() -> None:
    async with pair() as both:
        with pytest.raises(NegotiationFailed, match="/test/nothing"):
            await both.open("/test/nothing")


async def test_peer_without_sessions_is_a_typed_refusal() -> None:
    async with pair() as both:
        await both.acceptor.swarm.unhandle(SESSION_PROTOCOL)
        with pytest.raises(NegotiationFailed):
            await both.open()


async def test_reset_reaches_the_other_end() -> None:
    async with pair() as both:
        seen: list[BaseException] = []

        async def handler(stream: SessionStream) -> None:
            try:
                await stream.receive_some()
            except StreamReset as problem:
                seen.append(problem)
                raise

        both.acceptor.sessions.serve("/test/reset", handler)
        stream = await both.open("/test/reset")
        stream.abort()
        await until(lambda: bool(seen))
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_bulk_both_ways_while_connections_die() -> None:
    size, cuts = 24 * 1024 * 1024, 12
    chance = random.Random(7)
    data = chance.randbytes(size)
    async with pair() as both:
        stream = await both.open()
        got = hashlib.sha256()
        done = trio.Event()

        async def cutter() -> None:
            made = 0
            while not done.is_set() and made < cuts:
                await trio.sleep(chance.uniform(0.01, 0.06))
                side = chance.choice((both.dialler, both.acceptor))
                for connection in side.swarm.connections():
                    connection.abort("CUT")
                    made += 1

        async def reader() -> None:
            left = size
            while left:
                piece = await stream.receive_some()
                assert piece
                got.update(piece)
                left -= len(piece)
            done.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                nursery.start_soon(cutter)
                await stream.send_all(data)
        assert got.digest() == hashlib.sha256(data).digest()
        assert sum(not event.planned for event in both.switches()) >= 3


async def test_stopping_the_hosts_leaves_no_task_waiting() -> None:
    with trio.fail_after(15):
        async with pair() as both:
            stream = await both.open()
            await stream.send_all(b"x" * 100)
        with pytest.raises((StreamReset, trio.ClosedResourceError)):
            await stream.receive_some()
