"""Those who follow a swarm's connections, by events or as watchers: what they raise costs no connection."""

from __future__ import annotations

import logging

import pytest
import trio

from punchbridge.events import ConnectionClosed, ConnectionOpened, Event
from punchbridge.transport.base import Connection
from tests.support.swarms import ECHO, open_node


class Slip(Exception):
    """A defect of whoever follows."""


class Follower:
    """A watcher that keeps what it is told, or raises."""

    def __init__(self, raises: bool = False) -> None:
        self.seen: list[tuple[str, Connection]] = []
        self.gone = trio.Event()
        self._raises = raises

    def on_connected(self, connection: Connection) -> None:
        self.seen.append(("connected", connection))
        if self._raises:
            raise Slip

    def on_disconnected(self, connection: Connection) -> None:
        self.seen.append(("disconnected", connection))
        self.gone.set()
        if self._raises:
            raise Slip


@pytest.mark.parametrize("kind", [ConnectionOpened, ConnectionClosed])
async def test_a_subscriber_that_raises_leaves_no_dead_connection(
    kind: type[Event], caplog: pytest.LogCaptureFixture
) -> None:
    def slips(event: Event) -> None:
        if isinstance(event, kind):
            raise Slip

    async with open_node() as a, open_node() as b:
        b.swarm.events.subscribe(slips)
        follower = Follower()
        b.swarm.watchers.add(follower)
        with caplog.at_level(logging.ERROR):
            connection = await a.swarm.dial(b.addr)
            stream = await connection.open_stream([ECHO])
            await stream.send_all(b"x")
            with trio.fail_after(5):
                assert await stream.receive_some() == b"x"
            await a.swarm.close(connection)
            with trio.fail_after(5):
                await follower.gone.wait()
        assert b.swarm.connections() == ()
        assert "slips" in caplog.text
        assert kind.name in caplog.text


async def test_watchers_get_the_connection_and_one_that_raises_keeps_nothing_from_the_others() -> None:
    async with open_node() as a, open_node() as b:
        faulty, follower = Follower(raises=True), Follower()
        b.swarm.watchers.add(faulty)
        leave = b.swarm.watchers.add(follower)
        connection = await a.swarm.dial(b.addr)
        await b.record.wait(ConnectionOpened)
        (theirs,) = b.swarm.connections()
        await a.swarm.close(connection)
        with trio.fail_after(5):
            await follower.gone.wait()
        assert follower.seen == faulty.seen == [("connected", theirs), ("disconnected", theirs)]
        leave()
        leave()
        await a.swarm.dial(b.addr)
        await b.record.wait(ConnectionOpened, 2)
        assert len(follower.seen) == 2
        assert len(faulty.seen) == 3
