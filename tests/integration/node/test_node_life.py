"""A node's own life: closing while a dial is under way, callbacks that fail, a disk that is stuck."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from punchbridge.events import Event
from punchbridge_node.addressbook import NetworkAddress
from punchbridge_node.config import NodeConfig, NodeLimits, StoreLimits
from punchbridge_node.errors import NodeClosed
from punchbridge_node.events import HandshakeCompleted, PeerDisconnected
from punchbridge_node.node import Node
from punchbridge_node.peerstore import PeerStore
from punchbridge_node.storekeeper import StoreKeeper
from tests.support.node_lab import Recorder, at, channel_to, run, serving


class LateChannel:
    """A real channel that is ready only when the test says so."""

    def __init__(self, inner: grpc.aio.Channel) -> None:
        self._inner = inner
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def channel_ready(self) -> None:
        self.asked.set()
        await self.go.wait()
        await self._inner.channel_ready()


def test_a_dial_that_comes_through_after_the_close_is_refused_and_holds_nothing_up() -> None:
    async def main() -> None:
        async with Node(NodeConfig()) as listener, serving(listener) as port, channel_to(port) as channel:
            late = LateChannel(channel)
            async with Node(NodeConfig()) as node:
                dial = asyncio.create_task(node.connect(late, at(port)))
                await late.asked.wait()
                await node.close()
                late.go.set()
                await asyncio.wait({dial})
            with pytest.raises(NodeClosed):
                dial.result()

    run(main)


def test_an_event_callback_that_raises_ends_nothing() -> None:
    async def main() -> None:
        seen = Recorder()

        def emit(event: Event) -> None:
            seen(event)
            raise RuntimeError("the application's own fault")

        async with (
            Node(NodeConfig()) as listener,
            serving(listener) as port,
            Node(NodeConfig(), emit=emit) as node,
            channel_to(port) as first,
            channel_to(port) as second,
        ):
            link = await node.connect(first, at(port))
            await seen.until(HandshakeCompleted)
            await link.close()
            await seen.until(PeerDisconnected)
            again = await node.connect(second, at(port))
            assert again.ending is None

    run(main)


def test_a_stuck_disk_does_not_hold_up_the_close(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    few = StoreLimits(busy_timeout=0.4, flush_timeout=0.8)

    async def main() -> float:
        with closing(PeerStore(path, few)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
            keeper = StoreKeeper(store)
            async with Node(NodeConfig(limits=NodeLimits(store=few)), keeper=keeper) as node:
                other.execute("BEGIN IMMEDIATE")
                for number in range(1, 61):
                    keeper.learned([NetworkAddress("192.0.2.1", number)])
                began = time.monotonic()
                await node.close()
                took = time.monotonic() - began
                other.execute("ROLLBACK")
            return took

    assert run(main) < 25 * few.busy_timeout
