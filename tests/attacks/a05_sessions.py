"""All session places of an exposed server that is open to everybody, taken by one address or two.

Five identities open as many sessions as they may, let their connections end, and come again; one more takes whatever
place becomes free. In the first row they come through the relay that the honest caller uses as well, in the second one
directly from two addresses. In the third row each session of theirs says a word, so that it is none that never carried
anything. The same again with strangers whose connections are QUIC. The honest caller goes through `forward` over the
relay all the time.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import trio

from punchbridge.sessions.frames import HEADER, Attach, Kind, encode
from tests.attacks.asks import session_id, through
from tests.attacks.attacker import Attacker
from tests.attacks.backend import Server
from tests.attacks.frame import Row, Stage, Tries
from tests.attacks.frame import stage as fresh_stage
from tests.attacks.over import TRANSPORTS, UDP, Over, dial
from tests.attacks.programs import Listening, Relay
from tests.attacks.wire import EXPECTED, Stream

SESSION = "/punchbridge/session/1.0.0"
GRPC = "/punchbridge/grpc/1.0.0"
PER_PEER = 256
STRANGERS = ("127.0.2.3", "127.0.2.4")


ROWS = (
    ("1024 places over the relay that honest callers use, from one address", True, b""),
    ("1024 places directly, from two addresses", False, b""),
    ("over the relay, each session with a word", True, b"w"),
)


@dataclass
class Crowd:
    """The strangers. relayed: they come through the relay. said: what each session of theirs sends."""

    relay: Relay
    victim: Listening
    over: Over
    relayed: bool
    said: bytes = b""
    counts: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    async def connect(self, nursery: trio.Nursery, source: str) -> Attacker:
        connection = await dial(self.over, self.relay if self.relayed else self.victim, source=source, ip="127.0.0.1")
        await nursery.start(connection.run)
        if self.relayed:
            connection = await through(connection, self.victim.peer)
            await nursery.start(connection.run)
        return connection

    async def open(self, connection: Attacker) -> Stream:
        frame = Attach(session_id(), 1, 0, 65536, True, 0, GRPC).encode()
        word = encode(Kind.DATA, 0, self.said) if self.said else b""
        self.counts["tried"] += 1
        return await connection.open(SESSION, frame + word, wait=False)

    async def take(self, source: str) -> None:
        """As many sessions as one peer may have; then the connection ends, and they wait for it to come back."""
        async with trio.open_nursery() as nursery:
            connection = await self.connect(nursery, source)
            for number in range(PER_PEER):
                await self.open(connection)
                if number % 32 == 31:
                    await trio.sleep(0.05)
            await trio.sleep(1)
            for stream in connection.streams.values():
                self.counts[answer(stream)] += 1
            self.sent += connection.sent
            nursery.cancel_scope.cancel()
        connection.abort()

    async def grab(self, source: str) -> None:
        """One session after another, so that no place stays free."""
        async with trio.open_nursery() as nursery:
            connection = await self.connect(nursery, source)
            while connection.dead is None:
                stream = await self.open(connection)
                await trio.sleep(0.03)
                if stream.ended:
                    connection.forget(stream)
            nursery.cancel_scope.cancel()

    async def play(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(again, self.take, STRANGERS[0 if self.relayed else number % 2], 20.0)
            nursery.start_soon(again, self.grab, STRANGERS[0], 0.3)


def answer(stream: Stream) -> str:
    """What became of a session."""
    words = bytes(stream.data).rpartition(b"/1.0.0\n")[2]
    if len(words) < HEADER.size:
        return "silence"
    kind, _, _ = HEADER.unpack_from(words)
    return {Kind.ATTACHED: "attached", Kind.REFUSED: "refused"}.get(kind, "other")


async def again(what: object, source: str, pause: float) -> None:
    assert callable(what)
    while True:
        try:
            await what(source)
        except EXPECTED:
            pass
        except BaseExceptionGroup as group:
            if (rest := group.split(EXPECTED)[1]) is not None:
                raise rest from None
        await trio.sleep(pause)


async def _row(stage: Stage, what: str, backend: Server, over: Over, *, relayed: bool, said: bytes = b"") -> Row:
    quic = ("--listen", UDP.format("0.0.0.0")) if over == "QUIC" else ()
    relay = await stage.relay(*quic)
    victim = await stage.listening(
        "expose",
        f"127.0.0.1:{backend.port}",
        "--open",
        "--punch-retry",
        "600",
        *quic,
        relay=relay,
        listen="/ip4/0.0.0.0/tcp/0",
    )
    forward = await stage.forward(victim.target, "--no-p2p")
    await stage.calls(forward)
    crowd = Crowd(relay, victim, over, relayed, said)
    settle, wanted = stage.pick(8.0, 4.0), int(stage.pick(20, 5))

    def tried(since: float) -> int:
        return stage.honest.between(since, time.monotonic()).get("call", Tries()).count

    async def attack() -> None:
        """For some seconds, and on a busy machine until the honest caller has tried often enough."""
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.play)
            await trio.sleep(stage.pick(28.0, 10.0))
            while tried(began + settle) < wanted:  # noqa: ASYNC110 - another process tries
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()

    row = await stage.measure(what, victim, attack, seconds=150.0, settle=settle)
    _judge(row, crowd, backend, wanted)
    return row


def _judge(row: Row, crowd: Crowd, backend: Server, wanted: int) -> None:
    failed, tried = row.failed("call")
    row.said["sessions tried"] = crowd.counts["tried"]
    row.said["KiB sent"] = crowd.sent // 1024
    row.said["connections of the server at most"] = backend.most
    row.bound("it was attacked", crowd.counts["tried"] >= 500)
    row.bound("every honest call succeeds", tried >= wanted and not failed)
    row.bound("memory +40 MiB at most", row.grown <= 40)
    row.bound("well again within 10 s", row.recovery is not None and row.recovery <= 10)


async def main(stage: Stage) -> list[Row]:
    rows = []
    for over, (what, relayed, said) in itertools.product(TRANSPORTS, ROWS):
        told = what if over == "TCP" else f"{what}, over QUIC"
        # A stage of its own for each: the honest caller of one row is no witness of the next.
        async with fresh_stage(stage.attack, short=stage.short) as own:
            with Server("echo") as backend:
                rows.append(await _row(own, told, backend, over, relayed=relayed, said=said))
    return rows
