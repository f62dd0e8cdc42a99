"""Ping: 32 bytes sent and echoed (specs/ping). Pure; the random bytes and the clock come from the caller."""

from __future__ import annotations

from typing import Final

from punchbridge.errors import ProtocolViolation

__all__ = ["PING", "PING_SIZE", "PingExchange"]

PING: Final = "/ipfs/ping/1.0.0"
PING_SIZE: Final = 32


class PingExchange:
    """One ping of the asking side. `now` is a monotonic clock in seconds."""

    def __init__(self, payload: bytes, now: float) -> None:
        if len(payload) != PING_SIZE:
            raise ValueError(f"a ping has {PING_SIZE} bytes, not {len(payload)}")
        self._expected = payload
        self._received = bytearray()
        self._sent_at = now

    @property
    def missing(self) -> int:
        """Bytes of the echo that have not arrived."""
        return PING_SIZE - len(self._received)

    def receive(self, data: bytes, now: float) -> float | None:
        """Takes in echoed bytes; the round trip in seconds once all 32 are there.

        Raises ProtocolViolation at the first byte that differs from what was sent, or is too much.
        """
        self._received += data
        if bytes(self._received) != self._expected[: len(self._received)]:
            raise ProtocolViolation("the echo of a ping differs from what was sent")
        return now - self._sent_at if not self.missing else None
