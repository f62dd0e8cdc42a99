"""A relay that may open 1024 files, and strangers of 17 addresses who hold as many connections as they get.

Played against a closed relay, at whose list nobody of them stands, and against an open one. A member reserves and a
newcomer comes in while they hold on.
"""

from __future__ import annotations

import trio

from punchbridge.identity import Identity
from tests.attacks.asks import reserve
from tests.attacks.attacker import Attacker
from tests.attacks.frame import HONEST, Row, Stage, key_file
from tests.attacks.programs import Relay
from tests.attacks.wire import EXPECTED

FILES = 1024
ADDRESSES, EACH = 17, 62


class Holders:
    """Connections that do nothing. `most`: how many stood at once."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.up = self.most = 0

    async def hold(self, source: str) -> None:
        while True:
            try:
                with trio.fail_after(20):
                    connection = await Attacker.dial(self.relay.ip, self.relay.port, source=source)
                self.up += 1
                self.most = max(self.most, self.up)
                try:
                    await connection.run()
                finally:
                    self.up -= 1
                    connection.abort()
            except EXPECTED:
                pass
            await trio.sleep(0.5)

    async def play(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(ADDRESSES):
                for _ in range(EACH):
                    nursery.start_soon(self.hold, f"127.0.{number + 2}.1")
                await trio.sleep(1.0)


async def members(stage: Stage, relay: Relay, member: Identity) -> None:
    """A listed peer that comes from another address, again and again."""
    while True:
        began = trio.current_time()
        try:
            with trio.fail_after(10):
                connection = await Attacker.dial(relay.ip, relay.port, source="127.0.100.1", identity=member)
                async with trio.open_nursery() as nursery:
                    await nursery.start(connection.run)
                    status = (await reserve(connection)).status
                    nursery.cancel_scope.cancel()
                connection.abort()
            stage.honest.note("reserve", trio.current_time() - began, status == 100, f"status {status}")
        except* EXPECTED as problem:
            stage.honest.note("reserve", trio.current_time() - began, False, repr(problem.exceptions[0])[:80])
        await trio.sleep(1.0)


async def row(stage: Stage, what: str, *arguments: str, member: Identity) -> Row:
    relay = await stage.relay(*arguments, files=FILES)
    await stage.peer(relay, HONEST, key_file(stage, relay, member))
    holders = Holders(relay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(members, stage, relay, member)
        found = await stage.measure(what, relay, holders.play, seconds=stage.pick(45.0, 24.0), settle=4.0)
        nursery.cancel_scope.cancel()
    found.said["connections held at most"] = holders.most
    errors = [event for event in relay.events if event["event"] == "error"]
    found.bound("accept never runs out of files", not any(event["code"] == "ACCEPT" for event in errors))
    for kind in ("fresh", "ping", "reserve"):
        failed, count = found.failed(kind)
        found.bound(f"at most 1 of 20 failed: {kind}", count > 0 and failed <= max(1, count // 20))
    found.bound("memory +48 MiB at most", found.grown <= 48)
    stage.clear()
    return found


async def main(stage: Stage) -> list[Row]:
    member = Identity.generate()
    held = f"{ADDRESSES} addresses x {EACH} idle connections, {FILES} files"
    return [
        await row(stage, f"a closed relay: {held}", "--allow", str(member), member=member),
        await row(stage, f"an open relay: {held}", member=member),
    ]
