"""Length-prefixed messages on a stream: the framing of circuit, DCUtR, AutoNAT and identify (F1, F2)."""

from __future__ import annotations

from typing import Protocol

from punchbridge.errors import ProtocolViolation
from punchbridge.wire import varint
from punchbridge.wire.messages import MAX_MESSAGE

_READ = 4096


class PushBackStream(Protocol):
    """A stream that takes back bytes which belong to what follows."""

    async def receive_some(self, max_bytes: int = 262144) -> bytes: ...

    async def send_all(self, data: bytes) -> None: ...

    def push_back(self, data: bytes) -> None: ...


async def read_message(stream: PushBackStream, limit: int = MAX_MESSAGE) -> bytes:
    """The next message. Bytes behind it stay in the stream; cancelling leaves the stream as it was.

    The announced length is checked before its bytes are awaited. Raises ProtocolViolation for a longer message, a
    malformed prefix, or an end inside a message; StreamReset as the stream does.
    """
    buffer = bytearray()
    try:
        while True:
            taken = varint.split(buffer, limit)
            if taken is not None:
                message, end = taken
                del buffer[:end]
                return message
            data = await stream.receive_some(_READ)
            if not data:
                raise ProtocolViolation("the stream ended before a whole message had arrived")
            buffer += data
    finally:
        stream.push_back(bytes(buffer))


async def write_message(stream: PushBackStream, data: bytes) -> None:
    """Sends one message behind its length, in one piece."""
    await stream.send_all(varint.prefixed(data))
