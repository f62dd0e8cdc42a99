"""Two QUIC engines as our programs make them, and connections between them in memory, without sockets and streams."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import trio

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

import punchbridge_quic as quic  # noqa: E402
from control import Order, obey_stdin, pinned, ready  # noqa: E402

from punchbridge.identity import Identity  # noqa: E402
from punchbridge.transport.quic.transport import QuicTransport  # noqa: E402

HOSTS, PORT = ("192.0.2.1", "192.0.2.2"), 4001
STEP, STEPS = 0.01, 60
"""Seconds between two turns, and turns for each connection: acknowledgements have left, and the path was probed."""

SAID = bytes(700)
"""What each tells the other one once, as by identify."""


class Heap(ctypes.Structure):
    """The struct mallinfo2 of glibc."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")] + [
        (name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def held() -> int:
    """Bytes that are allocated; the engine's are, and Python's objects hardly."""
    look = ctypes.CDLL(None).mallinfo2
    look.restype = Heap
    found = look()
    return int(found.uordblks + found.hblkhd)


class Pair:
    """Both engines; one after the other has its turn."""

    def __init__(self) -> None:
        self.engines = [QuicTransport(Identity.generate())._engine() for _ in HOSTS]
        self.now = 1.0

    def open(self) -> None:
        """One more connection, which is idle after a word to either side."""
        dialled = self.engines[0].connect(HOSTS[1], PORT, self.now)
        accepted = self.turns(dialled, None)
        stream = self.engines[0].open(dialled)
        assert accepted is not None
        assert stream is not None
        for engine, number in zip(self.engines, (dialled, accepted), strict=True):
            engine.write(number, stream, SAID)
            engine.finish(number, stream)
            self.turns(dialled, accepted)
        for engine, number in zip(self.engines, (dialled, accepted), strict=True):
            engine.read(number, stream, 65536)
        self.turns(dialled, accepted)

    def turns(self, dialled: int, accepted: int | None) -> int | None:
        for _ in range(STEPS):
            self.now += STEP
            for index, number in ((0, dialled), (1, accepted)):
                if number is not None:
                    accepted = self.turn(index, number) or accepted
        return accepted

    def turn(self, index: int, number: int) -> int | None:
        mine, other, accepted = self.engines[index], self.engines[1 - index], None
        due = mine.timer(number)
        if due is not None and due <= self.now:
            mine.on_timer(number, self.now)
        mine.events(number)
        while (packet := mine.transmit(number, 64, self.now)) is not None:
            other.receive(packet[0], packet[1], HOSTS[index], PORT, None, packet[5], self.now)
            for attempt in other.attempts():
                accepted = other.accept(attempt[0], self.now)
        return accepted


async def main() -> None:
    pair = Pair()

    async def obey(order: Order) -> dict[str, int]:
        if order["do"] == "open":
            for _ in range(order["count"]):
                pair.open()
        else:
            del pair.engines[0]
        return {"held": held()}

    ready("", [], f"{pinned()}, punchbridge-quic {quic.__version__}")
    await obey_stdin(obey)


if __name__ == "__main__":
    trio.run(main)
