"""Load in both directions while sessions are moved and their connections killed at random, some thousand times."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import grpc
import trio
from common import say
from load import ASKERS, LARGE, SMALL, Load

import punchbridge
from punchbridge.addresses import Multiaddr, is_relayed, parse, peer_of
from punchbridge.errors import BridgeError
from punchbridge.host.host import Host
from punchbridge.session.live import LiveSession

PAUSES = (0.005, 0.08)
"""Seconds between two acts of the tormentor."""

PATIENCE = 3.0
CONNECTIONS = 6
LAST = 90.0
"""Seconds for the streams to end once the torment is over."""


class Tormentor:
    """Kills connections of sessions, moves sessions to other connections, opens fresh ones."""

    def __init__(self, host: Host, addrs: list[Multiaddr]) -> None:
        self._host = host
        self._addrs = addrs
        self._chance = random.Random(7)
        self.acts = {"kill": 0, "kill all": 0, "move": 0, "refused move": 0, "failed dial": 0}

    async def run(self) -> None:
        while True:
            await trio.sleep(self._chance.uniform(*PAUSES))
            sessions = [one for one in self._host.sessions.opened if one.active is not None]
            if not sessions:
                continue
            session, dice = self._chance.choice(sessions), self._chance.random()
            if dice < 0.03:
                self.acts["kill all"] += 1
                for connection in self._host.swarm.connections(session.peer):
                    connection.abort("TORMENT")
            elif dice < 0.4:
                self.acts["kill"] += 1
                assert session.active is not None
                session.active.connection.abort("TORMENT")
            else:
                await self._move(session)

    async def _move(self, session: LiveSession) -> None:
        """To a fresh connection, direct or relayed, or to one that stands."""
        active = session.active
        assert active is not None
        others = [one for one in self._host.swarm.connections(session.peer) if one is not active.connection]
        with trio.move_on_after(PATIENCE):
            try:
                if len(others) < CONNECTIONS and (not others or self._chance.random() < 0.5):
                    addr = self._chance.choice(self._addrs)
                    target = await self._host.swarm.dial(addr, expected=session.peer, fresh=True)
                else:
                    target = self._chance.choice(others)
            except BridgeError:
                self.acts["failed dial"] += 1
                return
            moved = await self._host.sessions.move(session, target, "TORMENT")
            self.acts["move" if moved else "refused move"] += 1


def switches(
    b: punchbridge.Bridge, circuit: str, direct: list[str], done: Callable[[], int], count: int
) -> dict[str, Any]:
    """Runs until `count` switches are done. Two echo streams and many unary calls, each on a session of its own.

    direct: none where a direct path has to be punched first; the tormentor takes what stands.
    """
    load = Load()
    addrs = [parse(addr) for addr in (circuit, *direct)]
    tormentor = Tormentor(b._control.host, addrs)
    assert is_relayed(addrs[0])
    assert all(peer_of(addr) is not None for addr in addrs)
    with ExitStack() as stack:
        channels = [stack.enter_context(b.channel(circuit, fresh=True)) for _ in range(3)]
        for channel in channels:
            grpc.channel_ready_future(channel).result(20)
        load.start(load.echoes, channels[0], "small", SMALL, 200, 0.002)
        load.start(load.echoes, channels[1], "large", LARGE, 2, 0.0)
        for number in range(ASKERS):
            load.start(load.asks, channels[2], number * 1_000_000)
        running = b._thread.submit(tormentor.run)
        while done() < count and not load.failures:
            load.over.wait(2.0)
            say("progress", switches=done(), **load.counts)
        running.cancel()
        load.stop(LAST)
    return {"failures": load.failures, "messages": load.counts, "acts": tormentor.acts}
