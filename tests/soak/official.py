"""gRPC's official Python interop client while its session is moved every 20 ms and every third carrier is killed.

official.py --direct ADDR … --circuit ADDR --peer FOLDER --seconds N [CASE ...]

FOLDER is what `scripts/interop build official` made. Each case is run once as the unmodified program, then again and
again for N seconds on one channel; both through a local port that leads to the bridge, as `punchbridge forward` makes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import trio
from common import kind_of, resident, say

import punchbridge
from punchbridge.addresses import Multiaddr, parse
from punchbridge.errors import BridgeError
from punchbridge.events import Event, SessionSwitched
from punchbridge.host.host import Host
from punchbridge.identity import PeerId
from punchbridge.local import forward
from punchbridge.local.target import parse_target
from punchbridge.session.live import LiveSession

BEAT = 0.02
KILLED = 3
"""Every carrier whose number is a multiple of this is killed; the others are left in good order."""
STOCK = 2
"""Connections of each kind held ready: one to move to, one for when that is killed."""
CASE_SECONDS = 60.0
LAST_WORDS = 300
CREDENTIALS = {"compute_engine_creds", "oauth2_auth_token", "jwt_token_creds", "per_rpc_creds"}


class Carriers:
    """What the sessions told of their carriers."""

    def __init__(self) -> None:
        self.paths = {"direct": 0, "relay": 0}
        self.transports: Counter[str] = Counter()
        self.planned = self.unplanned = self.opened = self.replayed = self.kills = 0
        self.longest_ms = 0.0
        self.apart: list[float] = []
        """Seconds between two carriers of a session that lives."""
        self._last: dict[str, float] = {}

    @property
    def count(self) -> int:
        return self.opened + self.planned + self.unplanned

    def take(self, event: Event) -> None:
        if not isinstance(event, SessionSwitched):
            return
        now = trio.current_time()
        self.paths[event.to] += 1
        self.transports[str(event.to_transport)] += 1
        if event.reason == "OPENED":
            self.opened += 1
        else:
            self.planned += event.planned
            self.unplanned += not event.planned
            self.replayed += event.replayed
            self.longest_ms = max(self.longest_ms, event.gap_ms)
            self.apart.append(now - self._last[event.session])
        self._last[event.session] = now


class Switcher:
    """Moves every session to the other path, or kills what carries it, once a beat; keeps connections in stock."""

    def __init__(self, host: Host, peer: PeerId, addrs: list[Multiaddr], carriers: Carriers) -> None:
        self._host = host
        self._peer = peer
        self._addrs = addrs
        self._carriers = carriers
        self.refused = self.failed_dials = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for addr in self._addrs:
                nursery.start_soon(self._stock, addr)
            due = trio.current_time()
            while True:
                due = max(due + BEAT, trio.current_time())
                await trio.sleep_until(due)
                for session in self._host.sessions.opened:
                    await self._beat(session)

    async def _beat(self, session: LiveSession) -> None:
        active = session.active
        if active is None or active.connection.closed.is_set():
            return
        number = active.generation
        if number % KILLED == 0:
            self._carriers.kills += 1
            active.connection.abort("TORMENT")
            return
        # To the other path, and to one that is killed there: relayed ones, and over TCP and QUIC, in turn.
        turn = ("tcp", "circuit", "quic", "circuit")[number // KILLED % 4]
        kind = "circuit" if number % KILLED == 1 else turn
        live = [one for one in self._host.swarm.connections(self._peer) if one is not active.connection]
        target = next((one for one in reversed(live) if one.transport == kind), live[-1] if live else None)
        if target is not None and not await self._host.sessions.move(session, target, "TORMENT"):
            self.refused += 1

    async def _stock(self, addr: Multiaddr) -> None:
        kind = kind_of(addr)
        while True:
            live = sum(one.transport == kind for one in self._host.swarm.connections(self._peer))
            if live >= STOCK:
                await trio.sleep(BEAT / 4)
                continue
            try:
                with trio.move_on_after(5.0):
                    await self._host.swarm.dial(addr, expected=self._peer, fresh=True)
            except BridgeError:
                self.failed_dials += 1
                await trio.sleep(BEAT)


class CaseFailed(Exception):
    """One of their programs ended with an error, or did not end."""


async def official(peer: Path, *program: str) -> str:
    """Runs one of their programs to its end; returns its stdout. Raises CaseFailed with its last words."""
    env = {**os.environ, "PYTHONPATH": f"{peer / 'tree'}:{peer / 'site'}", "PYTHONWARNINGS": "ignore"}
    with trio.move_on_after(CASE_SECONDS):
        done = await trio.run_process(
            [sys.executable, *program],
            cwd=peer / "tree",
            env=env,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()[-LAST_WORDS:]
            raise CaseFailed(f"{program[0]} ended with {done.returncode}: {words}")
        return done.stdout.decode()
    raise CaseFailed(f"{program[0]} did not end within {CASE_SECONDS:g} s")


async def all_cases(peer: Path) -> list[str]:
    """What the client itself lists, without the cases that ask a cloud's servers for tokens."""
    code = "from tests.interop.methods import TestCase; print(*(one.value for one in TestCase))"
    return [one for one in (await official(peer, "-c", code)).split() if one not in CREDENTIALS]


async def run_case(arguments: argparse.Namespace, port: int, case: str, carriers: Carriers) -> dict[str, Any]:
    """The unmodified program, then the same case on one channel for as long as asked."""
    given = ["--server_host", "127.0.0.1", "--server_port", str(port), "--test_case", case]
    before, kills, again = carriers.count, carriers.kills, str(arguments.peer / "repeat.py")
    runs, failure = 1, ""
    try:
        await official(arguments.peer, "-m", "tests.interop.client", *given)
        runs += int(await official(arguments.peer, again, str(arguments.seconds), *given))
    except CaseFailed as problem:
        failure = f"{case}: {problem}"
    row = {"case": case, "runs": runs, "carriers": carriers.count - before, "killed": carriers.kills - kills}
    say("case", **row, failure=failure)
    return {**row, "failure": failure}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    carriers, rows = Carriers(), list[dict[str, Any]]()
    addrs = [parse(addr) for addr in (*arguments.direct, arguments.circuit)]
    async with (
        punchbridge.open_trio(listen=[], punch=False, allow_private=arguments.lan, events=carriers.take) as b,
        trio.open_nursery() as nursery,
    ):
        target = parse_target(arguments.circuit)
        place = await nursery.start(partial(forward.run, b.host, target, "127.0.0.1:0"))
        switcher = Switcher(b.host, target.peer, addrs, carriers)
        nursery.start_soon(switcher.run)
        nursery.start_soon(report_memory)
        for case in arguments.cases or await all_cases(arguments.peer):
            rows.append(await run_case(arguments, place.port, case, carriers))
        nursery.cancel_scope.cancel()
    apart = sorted(carriers.apart)
    return {
        "failures": [row["failure"] for row in rows if row["failure"]],
        "cases": rows,
        "carriers": carriers.count,
        "killed": carriers.kills,
        "sessions": carriers.opened,
        "planned": carriers.planned,
        "unplanned": carriers.unplanned,
        "by_path": carriers.paths,
        "by_transport": dict(carriers.transports),
        "replayed": carriers.replayed,
        "longest_without_carrier_ms": carriers.longest_ms,
        "ms_between_carriers": {
            "median": round(1000 * statistics.median(apart), 1) if apart else None,
            "mean": round(1000 * statistics.fmean(apart), 1) if apart else None,
            "longest": round(1000 * apart[-1], 1) if apart else None,
        },
        "refused_moves": switcher.refused,
        "failed_dials": switcher.failed_dials,
    }


async def report_memory() -> None:
    while True:
        say("memory", resident=resident())
        await trio.sleep(1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--direct", action="append", required=True)
    parser.add_argument("--circuit", required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--lan", action="store_true")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all that need no credentials when none is named")
    arguments = parser.parse_args()
    say("result", **trio.run(run, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
