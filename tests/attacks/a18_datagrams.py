"""The UDP port of a relay: first datagrams of QUIC from spoofed addresses, each with a new id, and what is not QUIC.

Whoever wrote the address receives none of the answers, so what comes back to an address is what a victim there would
get. Beside it there are newcomers over TCP and over QUIC, and a standing connection over each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import trio

from tests.attacks.datagrams import RUBBISH, Source, firsts
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Relay

UDP = "/ip4/0.0.0.0/udp/0/quic-v1"
MANY = tuple(f"127.{high}.{low}.1" for high in (2, 3, 4) for low in range(1, 201))
"""600 addresses of 600 /24."""
NEIGHBOURS = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
"""In the /24 of the honest peer."""

MOST_BACK = 3
"""Bytes for each byte that an address which has proven nothing may get (RFC 9000 section 8.1)."""


async def row(
    stage: Stage, relay: Relay, udp: int, what: str, hosts: Sequence[str], made: Iterator[bytes], pace: float
) -> Row:
    """So many datagrams a second of these addresses, in turn."""
    sources = [Source(host) for host in hosts]

    async def attack() -> None:
        began = trio.current_time()
        for number, source in zip(itertools.count(1), itertools.cycle(sources)):
            source.send(next(made), (relay.ip, udp))
            source.count()
            if number % 20 == 0:
                await trio.sleep(max(0.0, began + number / pace - trio.current_time()))

    found = await stage.measure(what, relay, attack, seconds=stage.pick(20.0, 6.0), settle=1.0, recovery=20.0)
    for source in sources:
        source.count()
        source.close()
    sent, back = sum(one.sent for one in sources), sum(one.answered for one in sources)
    found.said.update({"MiB sent": round(sent / 2**20, 1), "MiB back": round(back / 2**20, 2)})
    found.bound("it was attacked", sent > 0)
    most = max((one.answered / one.sent for one in sources if one.sent), default=0.0)
    found.bound(f"no address gets more than {MOST_BACK} times what it sent", most <= MOST_BACK)
    for kind in ("fresh", "fresh over QUIC"):
        failed, count = found.failed(kind)
        found.bound(f"at most 1 of 50 failed: {kind}", count > 0 and failed <= max(1, count // 50))
    for kind in ("ping", "ping over QUIC"):
        found.bound(f"no failure: {kind}", found.failed(kind)[0] == 0)
    found.bound("memory +16 MiB at most", found.grown <= 16)
    return found


async def once(stage: Stage, relay: Relay, udp: int) -> Row:
    """One first datagram of each of twenty addresses, and no answer to what comes back: no Retry is asked for yet."""
    sources, made = [Source(host) for host in MANY[:20]], firsts()

    async def attack() -> None:
        for source in sources:
            source.send(next(made), (relay.ip, udp))
        await trio.sleep_forever()

    found = await stage.measure(
        "20 first datagrams, and silence", relay, attack, seconds=stage.pick(15.0, 6.0), recovery=20.0
    )
    for source in sources:
        source.count()
        source.close()
    most = max(one.answered / one.sent for one in sources)
    found.said["times sent back"] = round(most, 2)
    found.bound("they are answered", all(one.answered for one in sources))
    found.bound(f"no address gets more than {MOST_BACK} times what it sent", most <= MOST_BACK)
    return found


def _rubbish() -> Iterator[bytes]:
    kinds: list[Callable[[], bytes]] = list(RUBBISH.values())
    for kind in itertools.cycle(kinds):
        yield kind()


async def main(stage: Stage) -> list[Row]:
    relay = await stage.relay("--listen", UDP, "--set", "limits.swarm.refusals_told=2", listen="/ip4/0.0.0.0/tcp/0")
    relay.ip = "127.0.0.1"
    udp = relay.udp
    await stage.peer(relay)
    await stage.peer_over_quic(relay, udp)
    rows = [await once(stage, relay, udp)]
    rows.append(await row(stage, relay, udp, "spoofed first datagrams, 600 addresses of 600 /24", MANY, firsts(), 500))
    rows[-1].bound("it is counted", rows[-1].refused.get("unproven", 0) > 0)
    rows.append(await row(stage, relay, udp, "the same, four addresses of one /24", NEIGHBOURS, firsts(), 500))
    rows[-1].bound("it is counted", rows[-1].refused.get("unproven", 0) > 0)
    rows.append(
        await row(stage, relay, udp, "datagrams that lead to nothing, of 12 kinds", NEIGHBOURS, _rubbish(), 1000)
    )
    return rows
