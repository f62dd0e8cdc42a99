"""A faked round trip at a relay without caps: windows grow as if the path were long, and then nobody reads any more.

The sources answer Yamux pings eight seconds late. The targets take what comes until the windows have grown; then they
take nothing, and the sources go on until the relay takes nothing either. Over QUIC each datagram of a source leaves
late.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import trio

from punchbridge.identity import peer_text
from punchbridge.wire.circuit import STOP
from tests.attacks.asks import accept_circuit, circuit, reserve
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Row, Stage
from tests.attacks.over import TRANSPORTS, UDP, Over, dial
from tests.attacks.programs import Relay
from tests.attacks.wire import Ended, Stream

LATE: dict[Over, float] = {"TCP": 8.0, "QUIC": 3.0}
"""Seconds of the faked round trip. That of QUIC is measured from the handshake on, which has to end in ten seconds."""

PER_TARGET = 12
"""Circuits of one address to one target, at most."""


@dataclass
class Stall:
    """One play. `pushed`: bytes that the relay took after the targets had stopped reading."""

    relay: Relay
    sources: int
    circuits: int
    over: Over
    late: float
    grow: float
    stalled: bool = False
    pushed: int = 0
    targets: list[Attacker] = field(default_factory=list)

    async def play(self) -> None:
        self.stalled, self.targets = False, []
        async with trio.open_nursery() as nursery:
            for number in range(self.sources * self.circuits // PER_TARGET + 1):
                await self.target(nursery, f"127.0.3.{number + 1}")
            async with trio.open_nursery() as sources:
                for number in range(self.sources):
                    sources.start_soon(self.source, number)
            nursery.cancel_scope.cancel()

    async def target(self, nursery: trio.Nursery, source: str) -> None:
        connection = await dial(self.over, self.relay, source=source)
        await nursery.start(connection.run)
        nursery.start_soon(connection.serve, {STOP: self.take})
        if (await reserve(connection)).status != 100:
            raise Ended("no reservation")
        self.targets.append(connection)

    async def take(self, stream: Stream) -> None:
        await accept_circuit(stream)
        while not self.stalled:
            await stream.receive_some()
        await trio.sleep_forever()

    async def source(self, number: int) -> None:
        connection = await dial(self.over, self.relay, source="127.0.2.2", late=self.late)
        connection.pongs = False
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run)
            if self.over == "TCP":
                nursery.start_soon(connection.late_pongs, self.late)
            streams = []
            for one in range(self.circuits):
                target = self.targets[(number * self.circuits + one) % len(self.targets)]
                stream, status = await circuit(connection, peer_text(target.identity.peer_id))
                if status != 100:
                    raise Ended(f"the circuit was refused with {status}")
                streams.append(stream)
            await trio.sleep(self.late + 1.5)
            await self.push(streams, trio.current_time() + self.grow)
            self.stalled = True
            for target in self.targets:
                target.credit = False
            before = connection.sent
            try:
                await self.push(streams, math.inf)
            finally:
                self.pushed += connection.sent - before

    async def push(self, streams: list[Stream], until: float) -> None:
        while trio.current_time() < until:
            for stream in streams:
                if stream.window >= 1000 and not stream.ended:
                    await stream.send(bytes(min(stream.window, 60_000)))
            if all(stream.ended for stream in streams):
                raise Ended("the relay has ended every circuit")
            await trio.sleep(0.005)


async def main(stage: Stage) -> list[Row]:
    found = []
    for over, (sources, circuits) in itertools.product(TRANSPORTS, ((4, 4), (8, 12))):
        quic = ("--listen", UDP.format("127.0.0.1")) if over == "QUIC" else ()
        relay = await stage.relay(
            "--circuit-bytes", "0", "--circuit-seconds", "0", "--set", "relay.hop.stalled=15", *quic
        )
        await stage.peer(relay)
        late = stage.pick(LATE[over], 2.0 if over == "TCP" else 1.0)
        stall = Stall(relay, sources, circuits, over, late=late, grow=stage.pick(12.0, 4.0))
        seconds = stall.late + stall.grow + stage.pick(30.0, 8.0)
        what = f"{sources * circuits} circuits of one address with a faked round trip, then stalled targets"
        what += ", over QUIC" if over == "QUIC" else ""
        row = await stage.measure(what, relay, stall.play, seconds=seconds, settle=stall.late)
        row.said["MiB pushed after the stall"] = round(stall.pushed / 2**20, 1)
        row.bound("memory +64 MiB at most", row.grown <= 64)
        row.bound("honest peer: no failure", not row.failed("fresh")[0] and not row.failed("ping")[0])
        if not stage.short:
            stalled = relay.find("circuit.closed", reason="STALLED") is not None
            row.bound("what stalls has ended", stalled or "memory" in row.refused)
        found.append(row)
        stage.clear()
    return found
