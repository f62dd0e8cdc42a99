"""Sockets that are opened at a relay and never become a connection: how many newcomers it turns away meanwhile.

Mute ones say nothing, spoken ones send the first line of multistream and no more. Whoever is closed comes back at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tests.attacks.frame import Row, Stage, strangers
from tests.attacks.programs import Relay
from tests.attacks.wire import EXPECTED, MULTISTREAM, tcp

NEIGHBOURS = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
"""In the /24 of the honest peer."""


async def hold(relay: Relay, source: str, words: bytes, *, again: bool = True) -> None:
    """One socket that stays half-open for as long as the relay lets it, and then another one."""
    while True:
        try:
            stream = await tcp(relay.ip, relay.port, source=source)
            async with stream:
                await stream.send_all(words)
                while await stream.receive_some(100):
                    pass
        except EXPECTED:
            pass
        if not again:
            await trio.sleep_forever()
        await trio.sleep(0.05)


async def row(stage: Stage, relay: Relay, what: str, sources: Sequence[str], total: int, words: bytes = b"") -> Row:
    """So many sockets of these sources, in turn."""

    async def attack() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(total):
                nursery.start_soon(hold, relay, sources[number % len(sources)], words)
                await trio.sleep(0.001)

    found = await stage.measure(what, relay, attack, seconds=stage.pick(20.0, 8.0), settle=1.0, recovery=20.0)
    judge(found)
    told = [event for event in relay.events if event["event"] == "refused"]
    found.said["told"] = len(told)
    found.bound("it was attacked, and that is counted", any("half_open" in name for name in found.refused))
    found.bound("the events name a source", any(event["sources"] for event in told))
    return found


def judge(found: Row) -> None:
    """At most one of fifty newcomers is turned away, and a connection that stands does not suffer at all."""
    failed, count = found.failed("fresh")
    found.bound("at most 1 of 50 new connections is refused", count > 0 and failed <= max(1, count // 50))
    found.bound("connections that stand go on", found.failed("ping")[0] == 0)
    found.bound("memory +16 MiB at most", found.grown <= 16)


async def main(stage: Stage) -> list[Row]:
    relay = await stage.relay("--set", "limits.swarm.refusals_told=2", listen="/ip4/0.0.0.0/tcp/0")
    relay.ip = "127.0.0.1"
    await stage.peer(relay)
    rows = [await row(stage, relay, "256 mute sockets, four addresses of one /24", NEIGHBOURS, 256)]
    rows.append(await row(stage, relay, "256 spoken ones, four addresses of one /24", NEIGHBOURS, 256, MULTISTREAM))
    if stage.short:
        return rows
    rows.append(await row(stage, relay, "2000 mute sockets, one address", NEIGHBOURS[:1], 2000))
    rows.append(await row(stage, relay, "512 mute sockets, 64 addresses of 64 /24", strangers(64), 512))
    rows.append(await row(stage, relay, "512 spoken ones, 64 addresses of 64 /24", strangers(64), 512, MULTISTREAM))
    return rows
