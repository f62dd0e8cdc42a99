"""Sessions of one stranger that stand still on an exposed server: what they make it hold, and for how long.

In the first row the stranger sends into a server that never reads, as far as the windows go; in the second one it lets
a server that sends without end fill its own replay, acknowledging at first so that it grows, and then nothing. It
answers no ping of a session, but sends a frame on each now and then, so that its carriers look alive. The same again
over QUIC.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

import trio

from punchbridge.sessions.frames import HEADER, Attach, Kind, encode
from tests.attacks.asks import session_id
from tests.attacks.backend import Server
from tests.attacks.frame import Row, Stage
from tests.attacks.frame import stage as fresh_stage
from tests.attacks.over import TRANSPORTS, UDP, Over, dial
from tests.attacks.programs import Listening
from tests.attacks.wire import Stream

SESSION = "/punchbridge/session/1.0.0"
GRPC = "/punchbridge/grpc/1.0.0"
STRANGER = "127.0.2.7"
PIECE = bytes(60_000)
FAR = 1 << 62

ROWS = (("200 sessions into a server that never reads", "deaf"), ("200 sessions that acknowledge no more", "chatty"))


@dataclass
class Stranger:
    """One stranger with `number` sessions, who waits `seconds` for all of them to be ended."""

    victim: Listening
    number: int
    how: str
    over: Over
    seconds: float
    held: int = 0
    ended: int = 0
    streams: list[Stream] = field(default_factory=list)

    async def play(self) -> None:
        connection = await dial(self.over, self.victim, source=STRANGER)
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run)
            for _ in range(self.number):
                frame = Attach(session_id(), 1, 0, FAR, True, 0, GRPC).encode() + encode(Kind.DATA, 0, b"w")
                self.streams.append(await connection.open(SESSION, frame, wait=False))
            await trio.sleep(1.0)
            nursery.start_soon(self.keep_alive)
            await (self.push() if self.how == "deaf" else self.acknowledge())
            with trio.move_on_after(self.seconds):
                for stream in self.streams:
                    while not stream.ended:
                        stream.data.clear()
                        await stream.changed.wait()
            self.ended = sum(stream.ended for stream in self.streams)
            nursery.cancel_scope.cancel()
        connection.abort()

    async def push(self) -> None:
        """As much as each session and each stream takes, until nothing moves any more."""
        offsets = dict.fromkeys(self.streams, 1)
        still = 0
        while still < 20:
            still += 1
            for stream in self.streams:
                if stream.window > len(PIECE) + 1000 and not stream.ended and offsets[stream] < edge(stream):
                    await stream.send(encode(Kind.DATA, offsets[stream], PIECE))
                    offsets[stream] += len(PIECE)
                    self.held += len(PIECE)
                    still = 0
            await trio.sleep(0.05)

    async def acknowledge(self) -> None:
        """Takes what comes for some seconds, so that the replay grows; then nothing is acknowledged."""
        with trio.move_on_after(4.0):
            while True:
                for stream in self.streams:
                    received = max(0, stream.total - 4096) * 9 // 10
                    if not stream.ended and stream.window > 1000:
                        await stream.send(encode(Kind.ACK, received // 60_000 * 60_000, struct.pack(">Q", FAR)))
                    stream.data.clear()
                await trio.sleep(0.1)

    async def keep_alive(self) -> None:
        while True:
            await trio.sleep(0.4)
            for stream in self.streams:
                if not stream.ended and stream.window > 1000:
                    await stream.send(encode(Kind.PONG, 77))


def edge(stream: Stream) -> int:
    """How far the last frame that told one lets the stranger send, less a piece."""
    told, data = 1, bytes(stream.data)
    at = data.find(b"/1.0.0\n", 30)
    at = 0 if at < 0 else at + 7
    while at + HEADER.size <= len(data):
        kind, length, _ = HEADER.unpack_from(data, at)
        body = data[at + HEADER.size : at + HEADER.size + length]
        if kind in (Kind.ATTACHED, Kind.ACK) and len(body) >= 8:
            told = struct.unpack(">Q", body[-8:])[0]
        at += HEADER.size + length
    return told - len(PIECE)


async def _row(stage: Stage, what: str, how: str, over: Over, server: Server) -> Row:
    more = ("--listen", UDP.format("127.0.0.1")) if over == "QUIC" else ()
    victim = await stage.listening("expose", f"127.0.0.1:{server.port}", "--open", "--no-p2p", *more)
    await stage.peer(victim)
    stranger = Stranger(victim, int(stage.pick(200, 60)), how, over, stage.pick(150.0, 2.0))
    row = await stage.measure(what, victim, stranger.play, seconds=stage.pick(240.0, 60.0))
    row.said["MiB sent"] = stranger.held >> 20
    row.said["connections of the server"] = server.most
    row.bound("it was attacked", server.taken >= stage.pick(100, 30))
    row.bound("memory +96 MiB at most", row.grown <= 96)
    row.bound("honest peer: no failure", not row.failed("fresh")[0] and not row.failed("ping")[0])
    if not stage.short:
        row.bound("all of them are ended while the stranger holds on", stranger.ended == stranger.number)
    return row


async def main(stage: Stage) -> list[Row]:
    rows = []
    for over, (what, how) in itertools.product(TRANSPORTS, ROWS):
        async with fresh_stage(stage.attack, short=stage.short) as own:
            with Server(how) as server:
                rows.append(await _row(own, what if over == "TCP" else f"{what}, over QUIC", how, over, server))
    return rows
