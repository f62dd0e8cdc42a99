"""Punches of an exposed server aimed at third parties, whose addresses strangers name as their own.

The strangers call over a default relay that the server keeps; it runs with `--open`, so that it punches to anybody.
The third parties reset what comes, take it and close, or stay silent. What counts is the SYNs that reach them, or the
datagrams where the addresses are those of QUIC. The kernel's retransmits to silent ones are among them. Beside the
strangers an honest caller becomes direct.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from punchbridge.addresses import parse
from punchbridge.identity import Identity
from punchbridge.wire import varint
from punchbridge.wire.dcutr import PROTOCOL, encode_connect
from punchbridge.wire.identify import IDENTIFY, encode_info
from punchbridge.yamux.frames import DATA, FIN
from tests.attacks.asks import through
from tests.attacks.frame import Row, Stage
from tests.attacks.over import TRANSPORTS, UDP, Over, dial
from tests.attacks.programs import Listening, Program, Relay
from tests.attacks.wire import EXPECTED, Ended, Stream

NAMESPACES = True

RELAY, SERVER, STRANGER, HONEST = "11.0.0.1", "11.0.0.2", "11.0.0.66", "11.0.0.7"
THIRD = tuple(f"11.9.0.{number}" for number in range(1, 5))
PORTS = (80, 81, 82, 83)
FORMS = {"tcp": "/ip4/{}/tcp/{}", "udp": "/ip4/{}/udp/{}/quic-v1"}

PER_RUN, PER_ATTEMPT = 48, 16
"""What one address may get of a run and of an attempt."""
ORIGIN_DIALS, ORIGIN_SECONDS = 96, 1.0
"""What all strangers of one address get at once, and the time for one more."""

RULES = """table inet attack {
%s
 chain in { type filter hook input priority 0;
%s
 }
}
"""


class Victims:
    """The third parties, and the SYNs that each of them has got. `mode`: rst, accept or silent; udp: datagrams."""

    def __init__(self, mode: str) -> None:
        self.taken = 0
        counters = "\n".join(f" counter c{number} {{ }}" for number in range(len(THIRD)))
        fresh = "meta l4proto udp" if mode == "udp" else "tcp flags & (syn|ack) == syn"
        counts = "\n".join(f"  ip daddr {ip} {fresh} counter name c{n}" for n, ip in enumerate(THIRD))
        deaf = "  ip daddr 11.9.0.0/16 drop" if mode == "silent" else ""
        _run("nft", "-f", "-", stdin=RULES % (counters, f"{counts}\n{deaf}"))

    def counts(self) -> list[int]:
        """SYNs to each of them so far."""
        told = json.loads(_run("nft", "-j", "list", "counters"))["nftables"]
        found = {one["counter"]["name"]: one["counter"]["packets"] for one in told if "counter" in one}
        return [found[f"c{number}"] for number in range(len(THIRD))]

    async def accept(self, nursery: trio.Nursery) -> None:
        """Takes connections and closes them."""

        async def one(stream: trio.SocketStream) -> None:
            self.taken += 1
            try:
                with trio.move_on_after(0.5):
                    await stream.receive_some(1000)
                await stream.aclose()
            except EXPECTED:
                pass

        for ip in THIRD:
            for port in PORTS:
                listeners = await trio.open_tcp_listeners(port, host=ip)
                nursery.start_soon(trio.serve_listeners, one, listeners)

    @staticmethod
    def close() -> None:
        _run("nft", "delete", "table", "inet", "attack")


def _run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, text=True, capture_output=True, check=True).stdout


class Strangers:
    """Peers of one address that say DCUtR in identify, name the third parties, and answer CONNECT for ever."""

    def __init__(self, relay: Relay, target: str, form: str, over: Over, *, fresh: bool) -> None:
        self.relay, self.target, self.over, self.fresh = relay, target, over, fresh
        self.named = [parse(form.format(ip, port)) for ip in THIRD for port in PORTS]
        self.circuits = self.exchanges = 0

    async def one(self) -> None:
        """A stranger; `fresh` ones come back under another id as soon as their circuit ends."""
        identity = Identity.generate()
        while True:
            try:
                await self._circuit(identity)
            except* EXPECTED:
                pass
            await trio.sleep(1)
            if self.fresh:
                identity = Identity.generate()

    async def _circuit(self, identity: Identity) -> None:
        async with trio.open_nursery() as nursery:
            below = await dial(self.over, self.relay, source=STRANGER, ip=RELAY, identity=identity)
            await nursery.start(below.run)
            connection = await through(below, self.target)
            self.circuits += 1
            answers: dict[str, Callable[[Stream], Awaitable[None]]]
            answers = {PROTOCOL: self._exchange, IDENTIFY: partial(self._tell, identity)}
            nursery.start_soon(connection.serve, answers)
            await nursery.start(connection.run)
            while connection.dead is None and below.dead is None:  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.2)
            raise Ended("the circuit is over")

    async def _tell(self, identity: Identity, stream: Stream) -> None:
        ids = (PROTOCOL, IDENTIFY)
        info = encode_info(identity, agent="x", protocols=ids, listen=tuple(self.named[:4]), observed=None)
        words = varint.prefixed(info)
        await stream.frame(DATA, FIN, len(words), words)

    async def _exchange(self, stream: Stream) -> None:
        await stream.message()
        await stream.send(varint.prefixed(encode_connect(self.named)))
        await stream.message()
        self.exchanges += 1


async def _server(stage: Stage) -> tuple[Relay, Listening]:
    quic = ("--listen", UDP.format(RELAY)) if "QUIC" in TRANSPORTS else ()
    relay = await stage.relay(*quic, listen=f"/ip4/{RELAY}/tcp/0", lan=False)
    listens = [item for form in FORMS.values() for item in ("--listen", form.format(SERVER, 0))]
    arguments = ("expose", "127.0.0.1:9", "--open", "--relay", relay.addr, *listens)
    server: Listening = stage.start(Listening, *arguments)
    server.target = (await server.event("reservation.accepted"))["addrs"][0]
    server.peer = server.target.rsplit("/", 1)[-1]
    return relay, server


async def _honest(stage: Stage, server: Listening) -> None:
    """Somebody who calls over the same relay and wants a direct path, again and again."""
    while True:
        began = time.monotonic()
        options = ("--until-direct", "--timeout", "20", "--ephemeral", "--listen", f"/ip4/{HONEST}/tcp/0")
        caller = stage.start(Program, "ping", server.target, *options)
        while caller.alive:  # noqa: ASYNC110 - another process
            await trio.sleep(0.05)
        code = caller.process.returncode
        stage.honest.note("direct", time.monotonic() - began, code == 0, f"exit {code}: {caller.errors[-200:]}")
        await trio.sleep(1)


async def _row(stage: Stage, mode: str, strangers: int, seconds: float, over: Over = "TCP") -> Row:
    relay, server = await _server(stage)
    victims = Victims(mode)
    calls = Strangers(relay, server.peer, FORMS["udp" if mode == "udp" else "tcp"], over, fresh=strangers > 1)
    worst: dict[int, list[int]] = defaultdict(list)
    try:
        async with trio.open_nursery() as nursery:
            if mode == "accept":
                await victims.accept(nursery)
            nursery.start_soon(_honest, stage, server)

            async def attack() -> None:
                async with trio.open_nursery() as inner:
                    for _ in range(strangers):
                        inner.start_soon(calls.one)
                    ended = 0
                    while True:
                        await trio.sleep(0.1)
                        now = server.counts.get("punch.failed", 0)
                        if now > ended:  # an attempt of a single stranger is over
                            worst[ended] = victims.counts()
                            ended = now

            what = f"{strangers} stranger{'s' if strangers > 1 else ''}, third parties: {mode}"
            what += ", over QUIC" if over == "QUIC" else ""
            row = await stage.measure(what, server, attack, seconds=seconds, calm=8.0)
            nursery.cancel_scope.cancel()
        got = victims.counts()
    finally:
        victims.close()
    sent = "datagrams" if mode == "udp" else "SYNs"
    row.said |= {sent: sum(got), "to one host": max(got), "circuits": calls.circuits, "exchanges": calls.exchanges}
    row.said["whole connections"] = victims.taken
    row.bound("it was attacked", sum(got) > 0 and calls.exchanges > 0)
    if strangers == 1:
        row.bound(f"one address got {PER_RUN} of a run at most", max(got) <= PER_RUN)
        if mode != "silent":  # there the kernel's retransmits count too
            marks = [[0] * len(THIRD), *(worst[key] for key in sorted(worst)), got]
            pairs = itertools.pairwise(marks)
            steps = [max(b - a for a, b in zip(one, two, strict=True)) for one, two in pairs]
            row.said["most in an attempt"] = max(steps, default=0)
            row.bound(f"one address got {PER_ATTEMPT} of an attempt at most", max(steps, default=0) <= PER_ATTEMPT)
    most = ORIGIN_DIALS + seconds / ORIGIN_SECONDS
    if mode != "silent":
        row.bound(f"all strangers of one address together made {most:.0f} {sent} at most", sum(got) <= most + 5)
    failed, tried = row.failed("direct")
    row.bound("the honest caller became direct each time", tried > 0 and not failed)
    return row


async def main(stage: Stage) -> list[Row]:
    for address in (RELAY, SERVER, STRANGER, HONEST, *THIRD):
        _run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    rows = [await _row(stage, mode, 1, stage.pick(20.0, 20.0)) for mode in ("rst", "udp")]
    if "QUIC" in TRANSPORTS:
        rows.append(await _row(stage, "udp", 1, 20.0, "QUIC"))
    if not stage.short:
        rows += [await _row(stage, mode, 12, 30.0) for mode in ("rst", "accept", "silent", "udp")]
        rows += [await _row(stage, mode, 12, 30.0, "QUIC") for mode in ("rst", "udp") if "QUIC" in TRANSPORTS]
    return rows
