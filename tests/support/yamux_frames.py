"""Yamux frames by hand, and sessions in the states that tests begin with."""

from __future__ import annotations

import struct

import pytest

from punchbridge.config import YamuxLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.yamux import GoAwayCode, Opened, StreamState, Yamux
from punchbridge.yamux.frames import ACK, DATA, GO_AWAY, SYN, WINDOW_UPDATE


def frame(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"", version: int = 0) -> bytes:
    return struct.pack(">BBHII", version, kind, flags, stream_id, length) + payload


def data(flags: int, stream_id: int, payload: bytes) -> bytes:
    return frame(DATA, flags, stream_id, len(payload), payload)


def frames(raw: bytes) -> list[tuple[int, int, int, int]]:
    """(type, flags, id, length) of each frame."""
    out, position = [], 0
    while position < len(raw):
        version, kind, flags, stream_id, length = struct.unpack_from(">BBHII", raw, position)
        assert version == 0
        out.append((kind, flags, stream_id, length))
        position += 12 + (length if kind == DATA else 0)
    return out


def server(**limits: float) -> Yamux:
    """`limits`: fields of its YamuxLimits."""
    return Yamux(YamuxLimits(**limits), client=False, now=0.0)  # type: ignore[arg-type]


def client(**limits: float) -> Yamux:
    """`limits`: fields of its YamuxLimits."""
    return Yamux(YamuxLimits(**limits), client=True, now=0.0)  # type: ignore[arg-type]


def opened(session: Yamux, stream_id: int = 1, payload: bytes = b"") -> StreamState:
    events = session.receive(data(SYN, stream_id, payload), 0.0)
    assert isinstance(events[0], Opened)
    return events[0].stream


def established(session: Yamux) -> StreamState:
    """An own stream whose SYN was sent and acknowledged."""
    stream = session.open(0.0)
    session.data(stream, b"")
    session.receive(frame(WINDOW_UPDATE, ACK, stream.id, 0), 0.0)
    return stream


def violates(session: Yamux, raw: bytes, text: str) -> None:
    with pytest.raises(ProtocolViolation, match=text):
        session.receive(raw, 0.0)
    assert frames(session.take_outgoing())[-1] == (GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)
