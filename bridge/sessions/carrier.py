"""What a session machine remembers of one carrier: how far its attach and its end have come."""

from __future__ import annotations

from dataclasses import dataclass, field

from punchbridge.sessions.frames import FrameReader, Kind, encode


@dataclass
class CarrierState:
    generation: int
    since: float
    heard: float
    attached: bool = False
    end_sent: bool = False
    end_received: bool = False
    asked_at: float | None = None
    told: tuple[int, int] = (0, 0)
    """What the ATTACH of this carrier said: the bytes we had, and the edge of our window."""
    reader: FrameReader = field(default_factory=FrameReader)
    control: list[bytes] = field(default_factory=list)

    def ask(self, now: float) -> None:
        """PING: the answer tells the round trip, and that the carrier lives."""
        self.asked_at = now
        self.control.append(encode(Kind.PING, self.generation))

    def end(self, cursor: int) -> None:
        """END: nothing more is sent here; sending goes on at `cursor` on the next carrier."""
        self.control.append(encode(Kind.END, cursor))
        self.end_sent = True
