"""Unsigned varints (multiformats uvarint) and messages behind a length prefix.

Minimal form, at most 9 bytes (63 bits). Works on bytes in memory: it reads no stream and knows no message.
"""

from __future__ import annotations

from punchbridge.errors import ProtocolViolation

MAX_VARINT_BYTES = 9


def encode(value: int) -> bytes:
    """The varint of a number from 0 to 2**63 - 1; ValueError outside."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value} does not fit an unsigned varint of 63 bits")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """The number at `offset` and the offset behind it; None when more bytes are needed.

    Raises ProtocolViolation for more than 9 bytes and for a form that is not minimal.
    """
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if offset + index >= len(data):
            return None
        byte = data[offset + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index:
                raise ProtocolViolation("a varint is not in minimal form")
            return value, offset + index + 1
    raise ProtocolViolation(f"a varint is longer than {MAX_VARINT_BYTES} bytes")


def prefixed(message: bytes) -> bytes:
    """The message behind its length."""
    return encode(len(message)) + message


def split(data: bytes | bytearray | memoryview, limit: int) -> tuple[bytes, int] | None:
    """The first length-prefixed message and the offset behind it; None when more bytes are needed.

    The announced length is checked against `limit` before any byte of the message is there (F2). Raises
    ProtocolViolation when it is larger, or when the prefix is malformed.
    """
    head = decode(data)
    if head is None:
        return None
    size, start = head
    if size > limit:
        raise ProtocolViolation(f"a message of {size} bytes was announced, the limit is {limit}")
    if len(data) < start + size:
        return None
    return bytes(data[start : start + size]), start + size
