"""The first exchange on a stream that a peer opened for a session: its ATTACH is read, or a refusal is told.

Knows no session and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from punchbridge.errors import ProtocolViolation
from punchbridge.session.carrier import READ
from punchbridge.sessions import Attach, SessionRefusal
from punchbridge.sessions.frames import HEADER, FrameReader, Kind, refuse

if TYPE_CHECKING:
    from punchbridge.transport.base import Stream

__all__ = ["first_frame", "turn_down"]


async def first_frame(stream: Stream) -> tuple[Attach, bytes]:
    """The ATTACH frame, and what came behind it. Raises ProtocolViolation for anything else."""
    reader, seen = FrameReader(), b""
    while True:
        data = await stream.receive_some(READ)
        if not data:
            raise ProtocolViolation("the carrier ended before it said for which session it is")
        seen += data
        frames = reader.feed(data)
        if frames:
            kind, value, payload = frames[0]
            if kind is not Kind.ATTACH:
                raise ProtocolViolation(f"a carrier that begins with {kind.name}")
            return Attach.decode(value, bytes(payload)), seen[HEADER.size + len(payload) :]


async def turn_down(stream: Stream, refusal: SessionRefusal, seconds: float) -> None:
    """Tells the refusal, and ends the stream: by reset where the peer does not take it in so many seconds."""
    # A peer that does not read must not keep the place of the stream.
    with trio.move_on_after(seconds):
        await stream.send_all(refuse(refusal, refusal.name.lower().replace("_", " ")))
        await stream.send_eof()
        await stream.aclose()
        return
    stream.abort()
