"""Two session machines and the carriers between them as byte queues, without any I/O."""

from __future__ import annotations

from collections.abc import Sequence

from punchbridge.config import SessionLimits
from punchbridge.sessions import Attach, Released, Session
from punchbridge.sessions.frames import FrameReader, Kind, refuse

ID = b"0123456789abcdef"


class Wires:
    """Two ends and the carriers between them: each carrier is two byte queues that lose what is in them when cut."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.now = 100.0
        self.dialler = Session(ID, "echo", dialling=True, now=self.now, limits=limits)
        self.acceptor = Session(ID, "echo", dialling=False, now=self.now, limits=limits)
        self.events: dict[str, list[object]] = {"dialler": [], "acceptor": []}
        self.queues: dict[int, dict[str, bytearray]] = {}
        self.known: set[int] = set()
        self.got = {"dialler": bytearray(), "acceptor": bytearray()}

    def end(self, who: str) -> Session:
        return self.dialler if who == "dialler" else self.acceptor

    def attach(self) -> int:
        generation = self.dialler.attach(self.now)
        self.queues[generation] = {"dialler": bytearray(), "acceptor": bytearray()}
        return generation

    def cut(self, generation: int) -> None:
        del self.queues[generation]
        for who in ("dialler", "acceptor"):
            self.note(who, self.end(who).lost(generation, "CUT", self.now))

    def note(self, who: str, events: Sequence[object]) -> None:
        self.events[who] += events
        for event in events:
            if isinstance(event, Released) and event.generation in self.queues:
                other = "acceptor" if who == "dialler" else "dialler"
                if event.reason != "DRAINED":
                    del self.queues[event.generation]
                    self.note(other, self.end(other).lost(event.generation, "CLOSED", self.now))

    def flush(self, who: str, generation: int) -> None:
        """Hands one end's output on a carrier to the wire."""
        if generation in self.queues:
            for write in self.end(who).output(generation, 1 << 20, self.now):
                self.queues[generation][who] += b"".join(write)
            self.note(who, self.end(who).after_output(generation))

    def deliver(self, sender: str, generation: int, most: int = 1 << 30) -> bool:
        """Takes bytes that `sender` put on a carrier to the other end."""
        queue = self.queues.get(generation, {}).get(sender)
        if not queue:
            return False
        data = bytes(queue[:most])
        del queue[:most]
        receiver = "acceptor" if sender == "dialler" else "dialler"
        if receiver == "acceptor" and generation not in self.known:
            rest = self._open(generation, data)
            if rest is None:
                return True
            data = rest
        if data:
            self.note(receiver, self.end(receiver).received(generation, data, self.now))
        return True

    def _open(self, generation: int, data: bytes) -> bytes | None:
        """The accepting shell: reads the first frame itself. Chunks shorter than it are put back whole."""
        frames = FrameReader().feed(data)
        if not frames:
            self.queues[generation]["dialler"][:0] = data
            queue = self.queues[generation]["dialler"]
            if not FrameReader().feed(bytes(queue)):
                return None
            data = bytes(queue)
            queue.clear()
            frames = FrameReader().feed(data)
        kind, value, payload = frames[0]
        assert kind is Kind.ATTACH
        attach = Attach.decode(value, bytes(payload))
        self.known.add(generation)
        refusal, events = self.acceptor.attached_by(attach, self.now)
        if refusal is not None:
            self.queues[generation]["acceptor"] += refuse(refusal, "no")
        self.note("acceptor", events)
        return data[13 + len(payload) :]

    def read(self, who: str) -> None:
        while pieces := self.end(who).read(1 << 20, self.now):
            self.got[who] += b"".join(pieces)

    def settle(self, rounds: int = 4000) -> None:
        """Delivers everything, reading at both ends, until nothing moves and no acknowledgement is due."""
        for _ in range(rounds):
            moved = False
            for who in ("dialler", "acceptor"):
                for generation in list(self.queues):
                    self.flush(who, generation)
                    moved |= self.deliver(who, generation)
                self.read(who)
            if not moved:
                self.now += 0.021
                if not any(self.end(w).wants_output(g, self.now) for w in self.got for g in self.queues):
                    return
        raise AssertionError("the two ends did not settle")


def joined(limits: SessionLimits | None = None) -> Wires:
    wires = Wires(limits)
    wires.attach()
    wires.settle()
    return wires


def write_all(wires: Wires, who: str, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[wires.end(who).write(view, wires.now) :]
        wires.settle()
