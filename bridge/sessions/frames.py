"""The frames of a session carrier: 13 bytes of header, then at most MAX_PAYLOAD bytes.

    type u8 | length u32 | value u64 | payload        (big-endian)

`value` is an offset in the direction that the frame's type says. Frames know no order and no state.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from punchbridge.errors import ProtocolViolation

HEADER: Final = struct.Struct(">BIQ")
MAX_FRAME: Final = 65507
MAX_PAYLOAD: Final = MAX_FRAME - HEADER.size
"""One session frame fills one Yamux frame, which fills one Noise message."""

REPLAYED: Final = 8 * 1024
"""Bytes of a frame that is sent again, each in a message of its own. The peer waits for it, and has the bytes once a
frame is whole: one of full size takes a tenth of a second on a connection that has carried little so far."""

MAX_SERVICE: Final = 256
MAX_REASON: Final = 256
VERSION: Final = 1
_ATTACH: Final = struct.Struct(">BB16sIIQ")
_ATTACHED: Final = struct.Struct(">BIQ")


class UnknownVersion(ProtocolViolation):
    """An attach of a later version of these frames; answered with BAD_VERSION."""


class Kind(IntEnum):
    ATTACH = 1
    """Dialling end, first frame of a carrier. value: bytes received in order so far."""
    ATTACHED = 2
    """The answer. value: bytes received in order so far."""
    REFUSED = 3
    """The other answer. value: a SessionRefusal; payload: text."""
    DATA = 4
    """value: offset of the first byte."""
    ACK = 5
    """value: bytes received in order; payload u64: the offset up to which the peer may send."""
    END = 6
    """Nothing more comes on this carrier. value: where sending goes on, on the next one."""
    FIN = 7
    """The stream ends here. value: its length."""
    RESET = 8
    """The session is over at once. payload: text."""
    PING = 9
    PONG = 10
    """value: chosen by the pinging end, sent back."""
    RESUME = 11
    """A carrier was lost before its END. value: the first byte missing; send again from there."""


class SessionRefusal(IntEnum):
    """Why an attach was refused. Stable numbers; the names are the codes in events and docs."""

    UNKNOWN_SESSION = 1
    """No such session of this peer: it ended, expired, or belongs to somebody else (never told apart)."""
    STALE_GENERATION = 2
    BAD_OFFSET = 3
    """The offset lies outside the replay window."""
    TOO_MANY = 4
    """The peer has as many sessions as it may."""
    UNKNOWN_SERVICE = 5
    BAD_VERSION = 6
    """The other end speaks another version of these frames."""
    PATH_NOT_ALLOWED = 7
    """The service takes no carrier on this path, or the peer is admitted at another address only; a session that lives
    goes on, on another one."""
    NOT_ALLOWED = 8
    """The peer is not admitted. Nothing is said about what is served. A session that lived ends with this word as the
    text of its RESET."""


@dataclass(frozen=True)
class Attach:
    """The first frame. `fresh`: opens the session for `service`; else resumes it. `alive`: the one in use, or 0."""

    session: bytes
    generation: int
    received: int
    edge: int
    fresh: bool
    alive: int
    service: str = ""

    @property
    def begins(self) -> bool:
        """Whether it can be the first of a session that opens: it is `fresh`, and nothing was received yet."""
        return self.fresh and self.generation > 0 and self.received == 0

    def encode(self) -> bytes:
        head = _ATTACH.pack(VERSION, int(self.fresh), self.session, self.generation, self.alive, self.edge)
        body = head + self.service.encode()
        return encode(Kind.ATTACH, self.received, body)

    @classmethod
    def decode(cls, value: int, body: bytes) -> Attach:
        if body and body[0] != VERSION:
            raise UnknownVersion(f"session version {body[0]}; this end speaks {VERSION}")
        if len(body) < _ATTACH.size or len(body) > _ATTACH.size + MAX_SERVICE:
            raise ProtocolViolation(f"an attach frame of {len(body)} bytes")
        _, flags, session, generation, alive, edge = _ATTACH.unpack_from(body)
        try:
            service = body[_ATTACH.size :].decode("ascii")
        except UnicodeDecodeError:
            raise ProtocolViolation("the service of an attach frame is not ASCII") from None
        return cls(session, generation, value, edge, bool(flags & 1), alive, service)


@dataclass(frozen=True)
class AttachedFrame:
    """The answer to an attach. `alive`: the carrier in use is the same at this end, and is drained."""

    generation: int
    received: int
    edge: int
    alive: bool

    def encode(self) -> bytes:
        return encode(Kind.ATTACHED, self.received, _ATTACHED.pack(int(self.alive), self.generation, self.edge))

    @classmethod
    def decode(cls, value: int, body: bytes) -> AttachedFrame:
        if len(body) != _ATTACHED.size:
            raise ProtocolViolation(f"an attached frame of {len(body)} bytes")
        flags, generation, edge = _ATTACHED.unpack(body)
        return cls(generation, value, edge, bool(flags & 1))


def encode(kind: Kind, value: int, payload: bytes | memoryview = b"") -> bytes:
    """One frame as bytes; the payload is copied once."""
    return HEADER.pack(kind, len(payload), value) + payload


def refuse(refusal: SessionRefusal, text: str) -> bytes:
    """A REFUSED frame."""
    return encode(Kind.REFUSED, refusal, text.encode()[:MAX_REASON])


class FrameReader:
    """Cuts a carrier's bytes into frames. Keeps at most one incomplete frame."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[Kind, int, memoryview]]:
        """All frames that are whole now, as (kind, value, payload); payloads stay valid.

        Raises ProtocolViolation for an unknown type or an oversized length, before anything is kept for it.
        """
        whole = self._kept + data if self._kept else data
        view = memoryview(whole)
        frames: list[tuple[Kind, int, memoryview]] = []
        at, end, size = 0, len(whole), HEADER.size
        while end - at >= size:
            kind, length, value = HEADER.unpack_from(view, at)
            if length > MAX_PAYLOAD:
                raise ProtocolViolation(f"a session frame of {length} bytes; {MAX_PAYLOAD} is the most")
            known = _KINDS.get(kind)
            if known is None:
                raise ProtocolViolation(f"a session frame of unknown type {kind}")
            if end - at - size < length:
                break
            frames.append((known, value, view[at + size : at + size + length]))
            at += size + length
        self._kept = bytes(view[at:]) if at < end else b""
        return frames


_KINDS: Final = {int(kind): kind for kind in Kind}
