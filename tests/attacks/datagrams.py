"""What an attacker sends to the UDP port: first datagrams of QUIC made by the engine, and others by hand.

They leave from any address of this machine. Nothing that comes back is answered; its bytes are counted.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Final

from punchbridge.identity import Identity
from punchbridge.transport.quic.transport import QuicTransport

__all__ = ["RUBBISH", "Source", "firsts"]

_AGAIN: Final = 2000
"""Dials of one engine, which keeps them all."""

_ROOM: Final = 1024 * 1024
"""Bytes of answers that wait to be counted at one address."""


def firsts() -> Iterator[bytes]:
    """Whole first datagrams of dials, without end: each with a connection id and a ClientHello of its own."""
    transport = QuicTransport(Identity.generate())
    while True:
        engine = transport._engine()
        for _ in range(_AGAIN):
            packet = engine.transmit(engine.connect("192.0.2.1", 4001, 1.0), 1, 1.0)
            assert packet is not None
            yield packet[0]


def _long(version: bytes, size: int, cid: int = 20) -> bytes:
    """A datagram with a long header, and noise behind it."""
    head = b"\xc0" + version + bytes((cid,)) + secrets.token_bytes(cid) + b"\x08" + secrets.token_bytes(8)
    return head + secrets.token_bytes(size - len(head))


RUBBISH: Final[dict[str, Callable[[], bytes]]] = {
    "not QUIC": lambda: bytes((secrets.randbelow(0x40),)) + secrets.token_bytes(500),
    "like a stateless reset": lambda: bytes((0x40 | secrets.randbelow(0x40),)) + secrets.token_bytes(60),
    "of no connection": lambda: bytes((0x40 | secrets.randbelow(0x40),)) + secrets.token_bytes(1300),
    "an unknown version": lambda: _long(b"\x1a\x2a\x3a\x4a", 1200),
    "an unknown version, short": lambda: _long(b"\x1a\x2a\x3a\x4a", 60),
    "an unknown version, a long id": lambda: _long(b"\x1a\x2a\x3a\x4a", 1200, 255),
    "version negotiation": lambda: _long(b"\0\0\0\0", 1200),
    "noise as a first datagram": lambda: _long(b"\0\0\0\x01", 1200),
    "a short first datagram": lambda: _long(b"\0\0\0\x01", 100),
    "oversize": lambda: b"\xc0" + secrets.token_bytes(60_000),
    "one byte": lambda: secrets.token_bytes(1),
    "nothing": lambda: b"",
}


class Source:
    """A UDP socket at the address that datagrams are to come from. `sent`, `answered`: bytes; `answers`: datagrams."""

    def __init__(self, host: str) -> None:
        self.sent = self.answered = self.answers = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._socket.setblocking(False)
        self._socket.bind((host, 0))

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        try:
            self._socket.sendto(data, to)
        except OSError:  # its buffer is full
            return
        self.sent += len(data)

    def count(self) -> None:
        """Counts what has come back so far."""
        while True:
            try:
                self.answered += len(self._socket.recv(65535))
                self.answers += 1
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()
