"""One recorded first message of a handshake, sent again and again: it costs the attacker nothing, and the relay a key
exchange and a signature each time.
"""

from __future__ import annotations

import trio

from punchbridge.identity import Identity
from punchbridge.wire.multistream import Initiator
from punchbridge.wire.noise import Handshake
from punchbridge.yamux import YAMUX
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Relay
from tests.attacks.wire import EXPECTED, reset, tcp

WORKERS = 16


def recorded() -> bytes:
    """What an initiator sends first."""
    return Initiator(["/noise"]).start() + Handshake(Identity.generate(), "initiator", muxers=(YAMUX,)).start()


async def row(stage: Stage, relay: Relay, what: str, sources: tuple[str, ...]) -> Row:
    words = recorded()
    answered = sent = 0

    async def replay(source: str) -> None:
        nonlocal answered, sent
        while True:
            try:
                stream = await tcp(relay.ip, relay.port, source=source)
                try:
                    sent += 1
                    await stream.send_all(words)
                    size = 0
                    with trio.move_on_after(5):
                        while size < 200 and (data := await stream.receive_some(4096)):
                            size += len(data)
                    answered += size >= 200
                finally:
                    reset(stream)
            except EXPECTED:
                await trio.sleep(0.01)

    async def attack() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(WORKERS):
                nursery.start_soon(replay, sources[number % len(sources)])

    seconds = stage.pick(20.0, 8.0)
    found = await stage.measure(what, relay, attack, seconds=seconds, settle=5.0, recovery=20.0)
    found.said["sockets a second"] = round(sent / seconds)
    found.said["handshakes answered a second"] = round(answered / seconds)
    failed, count = found.failed("fresh")
    found.bound("at most 1 of 50 new connections is refused", count > 0 and failed <= max(1, count // 50))
    found.bound("it was attacked, and that is counted", "handshakes" in found.refused)
    if not stage.short:
        ratio = found.ratio("fresh")
        found.bound("a new connection takes at most twice as long", ratio is not None and ratio <= 2)
    return found


async def main(stage: Stage) -> list[Row]:
    relay = await stage.relay(listen="/ip4/0.0.0.0/tcp/0")
    relay.ip = "127.0.0.1"
    await stage.peer(relay)
    return [await row(stage, relay, "from one address", ("127.0.0.2",))]
