"""`/ipfs/ping` without pause: what one stranger makes a relay do, and whether a faked round trip grows the window.

The stranger answers Yamux pings eight seconds late, so that the path looks long and windows might grow; then it sends
pings as fast as the relay reads them, and opens the stream again when the relay ends it.
"""

from __future__ import annotations

from typing import Any

import trio

from punchbridge.yamux.frames import INITIAL_WINDOW
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Relay
from tests.attacks.wire import Ended, Stream

PING = "/ipfs/ping/1.0.0"
STRANGER = "127.0.2.2"


class Pinger:
    """One stranger. `most`: the largest window that the relay ever gave a stream beyond what it had sent back."""

    def __init__(self, relay: Relay, *, late: float) -> None:
        self.relay, self.late = relay, late
        self.echoed = self.most = self.streams = 0

    async def play(self) -> None:
        connection = await Attacker.dial(self.relay.ip, self.relay.port, source=STRANGER)
        connection.pongs = False
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run)
            nursery.start_soon(connection.late_pongs, self.late)
            await trio.sleep(self.late + 1.5)
            while connection.dead is None:
                stream = await connection.open(PING)
                self.streams += 1
                await self.flood(stream)
            raise Ended(connection.dead)

    async def flood(self, stream: Stream) -> None:
        data = b"p" * 32 * 1024
        while not stream.ended:
            self.most = max(self.most, stream.window)
            if stream.window >= len(data):
                await stream.send(data)
            else:
                await stream.changed.wait()
            self.echoed += len(stream.data)
            stream.data.clear()


async def main(stage: Stage) -> list[Row]:
    relay = await stage.relay()
    await stage.peer(relay)
    pinger = Pinger(relay, late=stage.pick(8.0, 2.0))
    seconds = stage.pick(30.0, 8.0)
    row = await stage.measure(
        "pings without pause, round trip faked", relay, pinger.play, seconds=seconds, settle=pinger.late
    )
    said: dict[str, Any] = {"KiB echoed": pinger.echoed // 1024, "streams": pinger.streams, "window": pinger.most}
    row.said.update(said)
    row.bound("window at most 256 KiB", pinger.most <= INITIAL_WINDOW)
    most = 1000 + 200 * seconds
    row.bound("1000 pings and 200 a second answered at most", pinger.echoed <= 32 * 1.1 * most)
    row.bound("memory +32 MiB at most", row.grown <= 32)
    row.bound("honest peer: no failure", not row.failed("fresh")[0] and not row.failed("ping")[0])
    return [row]
