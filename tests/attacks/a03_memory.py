"""What one address makes a relay hold: pushes that are full, answers that nobody reads, requests without an end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from punchbridge.wire import varint
from punchbridge.wire.circuit import HOP
from punchbridge.wire.identify import PUSH
from punchbridge.wire.multistream import line
from punchbridge.yamux.frames import DATA, SYN, header
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Relay
from tests.attacks.wire import EXPECTED, MULTISTREAM, WINDOW

STRANGER = "127.0.2.2"
CONNECTIONS = 64
"""What a relay takes from one address."""


async def pushes(connection: Attacker) -> None:
    """Five times eight pushes with a whole window each, again and again: of these some are read, others wait."""
    while connection.dead is None:
        for _ in range(40):
            stream = await connection.open(PUSH, wait=False)
            await stream.send(bytes(stream.window), force=True)
        await trio.sleep(4.8)


async def requests(connection: Attacker) -> None:
    """Requests whose last byte never comes, as many as a peer may have under way."""
    while connection.dead is None:
        for _ in range(16):
            await connection.open(HOP, varint.encode(4000) + bytes(3999), wait=False)
        await trio.sleep(9.5)


async def circuits(connection: Attacker) -> None:
    """Requests with a whole window behind each: the bytes of a circuit that is not there yet."""
    while connection.dead is None:
        for _ in range(16):
            stream = await connection.open(HOP, varint.encode(4000) + bytes(3999), wait=False)
            await stream.send(bytes(min(stream.window, WINDOW)), force=True)
        await trio.sleep(9.5)


async def answers(connection: Attacker) -> None:
    """Proposals that are refused, on streams that stay open; what comes back is never read."""
    proposal = (MULTISTREAM + line("/" + "x" * 37))[:60]
    number = 1
    while True:
        frames = (header(DATA, SYN, stream, len(proposal)) + proposal for stream in range(number, number + 200, 2))
        await connection.raw(b"".join(frames))
        number += 200


async def row(
    stage: Stage, relay: Relay, what: str, play: Callable[[Attacker], Awaitable[None]], *, reads: bool = True
) -> Row:
    async def one() -> None:
        while True:
            try:
                connection = await Attacker.dial(relay.ip, relay.port, source=STRANGER)
            except EXPECTED:
                await trio.sleep(0.5)
                continue
            try:
                async with trio.open_nursery() as nursery:
                    if reads:
                        await nursery.start(connection.run)
                    await play(connection)
                    nursery.cancel_scope.cancel()
            except* EXPECTED:
                pass
            connection.abort()
            await trio.sleep(0.1)

    async def attack() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(one)
                await trio.sleep(0.05)

    found = await stage.measure(what, relay, attack, seconds=stage.pick(25.0, 12.0), settle=4.0)
    found.bound("memory +32 MiB at most", found.grown <= 32)
    found.bound("a connection that stands goes on", not found.failed("ping")[0])
    found.bound("the honest peer is well again within a minute", found.recovery is not None)
    found.bound("what was turned away is counted", any(name in COUNTED for name in found.refused))
    return found


COUNTED = ("unread", "memory", "identify_pushes", "streams", "hop_streams_address", "hop_streams_peer")


async def main(stage: Stage) -> list[Row]:
    found = []
    kinds = (
        ("identify pushes with a whole window each", pushes, True),
        ("requests without an end", requests, True),
        ("requests with a whole window behind each", circuits, True),
        ("answers that are not read", answers, False),
    )
    for what, play, reads in kinds:
        relay = await stage.relay()
        await stage.peer(relay)
        found.append(await row(stage, relay, f"{CONNECTIONS} connections: {what}", play, reads=reads))
        stage.clear()
    return found
