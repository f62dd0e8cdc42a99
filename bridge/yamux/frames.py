"""The 12-byte Yamux header and its numbers. Knows no stream. Spec: libp2p/specs yamux."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

YAMUX = "/yamux/1.0.0"

HEADER = struct.Struct(">BBHII")
"""version, type, flags, stream id, length."""

HEADER_SIZE = HEADER.size
VERSION = 0

DATA, WINDOW_UPDATE, PING, GO_AWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8

MAX_ID = 2**32 - 1
MAX_CREDIT = 2**32 - 1

INITIAL_WINDOW: Final = 256 * 1024
"""Yamux spec: the window of each stream and direction at the start."""

MAX_FRAME_PAYLOAD: Final = 65519 - HEADER_SIZE
"""65507: with its header one frame fills one Noise message of 65519 bytes, which is one send."""


class GoAwayCode(IntEnum):
    """The length field of a GoAway frame (Y9)."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    GATED = 0x1007
    """The peer is not let in: go-libp2p's code of a connection that its gater closes."""


def header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """One frame header; a whole frame for all types but Data."""
    return HEADER.pack(VERSION, kind, flags, stream_id, length)
