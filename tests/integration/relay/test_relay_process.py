"""The relay as a process of its own: killed, stopped and started again under a client that keeps its reservation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from punchbridge.addresses import Multiaddr, parse
from punchbridge.events import ReservationAccepted, ReservationLost
from tests.support.relay_lab import ECHO, echo, network, read_all

PROGRAM = """
import json, sys, trio
from pathlib import Path
from punchbridge.addresses import parse
from punchbridge.eventhub import EventHub
from punchbridge.identity import load_or_create
from punchbridge_relay.program import RelayConfig, run

async def main():
    hub = EventHub()
    hub.subscribe(lambda event: print(json.dumps({"event": event.name, **event.as_dict()}), flush=True))
    config = RelayConfig(
        identity=load_or_create(Path(sys.argv[1])), listen=(parse(sys.argv[2]),), stats_interval=0.2, autonat=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, config, hub)
        with trio.open_signal_receiver(__import__("signal").SIGTERM) as received:
            async for _ in received:
                break
        nursery.cancel_scope.cancel()

trio.run(main)
"""


class Relay:
    """A relay process and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def event(self, name: str) -> dict[str, Any]:
        """The next event of that name; on a busy machine the program needs a while to start."""
        assert self.process.stdout is not None
        with trio.fail_after(60):
            while True:
                while b"\n" in self._rest:
                    line, self._rest = self._rest.split(b"\n", 1)
                    event: dict[str, Any] = json.loads(line)
                    if event["event"] == name:
                        return event
                data = await self.process.stdout.receive_some()
                assert data, "the relay ended"
                self._rest += data

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


async def _kill(process: trio.Process) -> None:
    """At the end of a test; trio's own way warns when a program on a busy machine needs its 10 s to drain."""
    process.kill()


@asynccontextmanager
async def relay_process(key: Path, listen: str = "/ip4/127.0.0.1/tcp/0") -> AsyncIterator[tuple[Relay, Multiaddr]]:
    command = [sys.executable, "-c", PROGRAM, str(key), listen]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, deliver_cancel=_kill)
        )
        relay = Relay(process)
        try:
            yield relay, parse((await relay.event("relay.listening"))["addrs"][0])
        finally:
            nursery.cancel_scope.cancel()


async def test_killed_and_started_again(tmp_path: Path) -> None:
    key = tmp_path / "key"
    async with network() as net:
        node = await net.node()
        async with relay_process(key) as (relay, addr):
            await node.relays.reserve(addr)
            relay.signal(signal.SIGKILL)
            await node.log.wait(ReservationLost)
            assert node.swarm.announced() == ()
        async with relay_process(key, str(addr).partition("/p2p/")[0]) as (relay, again):
            assert again == addr
            await node.log.wait(ReservationAccepted, 2)
            stats = await relay.event("relay.stats")
            while not stats["reservations"]:
                stats = await relay.event("relay.stats")


async def test_sigterm_drains_and_exits_with_zero(tmp_path: Path) -> None:
    async with network() as net:
        node = await net.node()
        async with relay_process(tmp_path / "key") as (relay, addr):
            await node.relays.reserve(addr)
            relay.signal(signal.SIGTERM)
            with trio.fail_after(10):
                assert await relay.process.wait() == 0
            lost = await node.log.wait(ReservationLost)
            assert lost.code == "CONNECTION_LOST"


async def test_circuits_through_a_relay_process_are_counted_there(tmp_path: Path) -> None:
    async with network() as net:
        dialer, listener = await net.node(), await net.node()
        await listener.swarm.handle(ECHO, echo, max_streams=4, max_per_peer=4)
        async with relay_process(tmp_path / "key") as (relay, addr):
            reservation = await listener.relays.reserve(addr)
            connection = await dialer.swarm.dial(reservation.addrs[0])
            opened = await relay.event("circuit.opened")
            assert (opened["source"], opened["target"]) == (str(dialer.swarm.identity), str(listener.swarm.identity))
            stream = await connection.open_stream([ECHO])
            await stream.send_all(b"x" * 10_000)
            assert len(await read_all(stream, 10_000)) == 10_000
            await dialer.swarm.close(connection)
            closed = await relay.event("circuit.closed")
            assert 10_000 < closed["bytes_to_target"] < 12_000
            assert 10_000 < closed["bytes_to_source"] < 12_000


async def test_a_frozen_relay_is_noticed_and_found_again(tmp_path: Path) -> None:
    async with network() as net:
        node = await net.node()
        async with relay_process(tmp_path / "key") as (relay, addr):
            await node.relays.reserve(addr)
            relay.signal(signal.SIGSTOP)
            try:
                (connection,) = node.swarm.connections()
                with trio.move_on_after(0.5) as waited:
                    await connection.ping()
                assert waited.cancelled_caught  # mute, as a frozen machine is
                connection.abort("KEEPALIVE_TIMEOUT")  # what the keepalive does some seconds later
                await node.log.wait(ReservationLost)
            finally:
                relay.signal(signal.SIGCONT)
            await node.log.wait(ReservationAccepted, 2)
