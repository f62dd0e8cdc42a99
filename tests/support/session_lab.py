"""Two hosts on loopback with the session service, an echo service behind one, and a bare carrier to attach by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from punchbridge import addresses
from punchbridge.access.policy import OPEN
from punchbridge.addresses import Multiaddr, with_peer
from punchbridge.config import Limits, Punch
from punchbridge.eventhub import EventHub
from punchbridge.events import Event, SessionSwitched
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, PeerId
from punchbridge.session import SESSION_PROTOCOL, SessionStream
from punchbridge.sessions.frames import Attach, FrameReader, Kind
from punchbridge.transport.base import Connection, Stream

SERVICE = "/test/echo/1.0.0"
E = TypeVar("E", bound=Event)


@dataclass
class Pair:
    dialler: Host
    acceptor: Host
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

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def switches(self) -> list[SessionSwitched]:
        return self.of(SessionSwitched)


@dataclass(frozen=True)
class Route:
    peer: PeerId
    addr: Multiaddr | None

    @property
    def addrs(self) -> tuple[Multiaddr, ...]:
        return () if self.addr is None else (self.addr,)


def config(limits: Limits | None = None) -> HostConfig:
    listen = (addresses.parse("/ip4/127.0.0.1/tcp/0"),)
    return HostConfig(
        Identity.generate(),
        listen=listen,
        access=OPEN,
        allow_private=True,
        autonat=False,
        punch=Punch(enabled=False),
        limits=limits or Limits(),
    )


async def echo(stream: SessionStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def pair(limits: Limits | None = None) -> AsyncIterator[Pair]:
    """`limits`: of both hosts."""
    hub = EventHub()
    events: list[Event] = []
    hub.subscribe(events.append)
    async with open_host(config(limits), hub) as dialler, open_host(config(limits), EventHub()) as acceptor:
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


async def raw(host: Host, both: Pair) -> Stream:
    """A stream of the session protocol whose bytes the test writes itself."""
    connection = await host.swarm.dial(both.addr, fresh=True)
    return await connection.open_stream((SESSION_PROTOCOL,))


async def answer(stream: Stream) -> tuple[Kind, int, bytes]:
    reader = FrameReader()
    with trio.fail_after(5):
        while data := await stream.receive_some():
            for kind, value, payload in reader.feed(data):
                return kind, value, bytes(payload)
    raise AssertionError("the carrier ended without an answer")


async def attach(host: Host, both: Pair, frame: Attach) -> tuple[Kind, int, bytes]:
    stream = await raw(host, both)
    await stream.send_all(frame.encode())
    return await answer(stream)
