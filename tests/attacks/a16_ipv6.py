"""One host with an IPv6 /56, 256 nets of /64, at a relay: half-open places, and reservations, which others want too."""

from __future__ import annotations

import subprocess
from collections import Counter

import trio

from tests.attacks.a01_half_open import hold, judge
from tests.attacks.asks import reserve
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Relay
from tests.attacks.wire import MULTISTREAM

NAMESPACES = True

RELAY, HONEST = "fd00::1", "fd00:9:9:9::9"


def attackers(count: int, step: int = 1) -> list[str]:
    """One address in each of so many /64; `step` 1 keeps them in one /56, 256 in one /48."""
    return [f"fd00:0:0:{1 + number * step:x}::2" for number in range(count)]


def add_addresses() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for addr in (RELAY, HONEST, *attackers(16), *attackers(64, 256)):
        subprocess.run(["ip", "-6", "addr", "replace", f"{addr}/128", "dev", "lo", "nodad"], check=True)


async def half_open(stage: Stage, relay: Relay, what: str, sources: list[str], words: bytes) -> Row:
    async def attack() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(256):
                nursery.start_soon(hold, relay, sources[number % len(sources)], words)

    found = await stage.measure(what, relay, attack, seconds=stage.pick(20.0, 8.0), settle=1.0, recovery=20.0)
    judge(found)
    found.bound("it was attacked, and that is counted", any("half_open" in name for name in found.refused))
    return found


async def hoard(stage: Stage, relay: Relay, what: str, sources: list[str], most: int) -> Row:
    """128 identities, each with a connection of its own that stays, ask for a reservation; then an honest one does."""
    answers: Counter[str] = Counter()
    honest = 0

    async def one(source: str) -> None:
        connection = await Attacker.dial(relay.ip, relay.port, source=source)
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run)
            answers[str((await reserve(connection)).status)] += 1
            await trio.sleep_forever()

    async def attack() -> None:
        nonlocal honest
        answers.clear()
        async with trio.open_nursery() as nursery:
            for number in range(128):
                nursery.start_soon(one, sources[number % len(sources)])
                await trio.sleep(0.08)
            with trio.move_on_after(20):
                while answers.total() < 128:  # noqa: ASYNC110 - tasks count
                    await trio.sleep(0.1)
            connection = await Attacker.dial(relay.ip, relay.port, source=HONEST)
            await nursery.start(connection.run)
            honest = int((await reserve(connection)).status)
            nursery.cancel_scope.cancel()

    found = await stage.measure(what, relay, attack, seconds=60.0, recovery=20.0)
    found.said.update({f"status {status}": times for status, times in sorted(answers.items())})
    found.said["honest"] = honest
    found.bound(f"at most {most} of 128 reservations", 0 < answers["100"] <= most)
    found.bound("an honest reservation of another network is granted", honest == 100)
    found.bound("it is counted", any(name.startswith("reserve_full") for name in found.refused))
    return found


async def main(stage: Stage) -> list[Row]:
    add_addresses()
    relay = await stage.relay(listen="/ip6/::/tcp/0")
    relay.ip = RELAY
    await stage.peer(relay, HONEST)
    rows = [
        await half_open(stage, relay, "256 mute sockets, four /64 of one /56", attackers(4), b""),
        await half_open(stage, relay, "256 spoken ones, sixteen /56 of one /48", attackers(16, 256), MULTISTREAM),
        await hoard(stage, relay, "128 reservations, sixteen /64 of one /56", attackers(16), 16),
    ]
    if not stage.short:
        rows.append(await hoard(stage, relay, "128 reservations, 64 /56 of one /48", attackers(64, 256), 32))
    return rows
