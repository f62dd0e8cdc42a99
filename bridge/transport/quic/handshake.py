"""The handshake of one QUIC connection: waits for it, and checks whom the certificate stands for.

It ends with a connection, or with an error that says why and nothing left behind.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import punchbridge_quic as quic
import trio

from punchbridge.errors import AuthenticationFailed, BridgeError, ConnectionLost, DialTimeout
from punchbridge.identity import PeerId
from punchbridge.transport.quic.endpoint import Line
from punchbridge.transport.quic.reasons import OTHER, handshake_error

__all__ = ["Handshake"]

_KEPT: Final = 4096
"""Events kept until the connection runs. A peer that causes more in that moment has not waited for any answer."""


class Handshake:
    """See `endpoint.Owner`. `place` says with whom, for errors; `connected`: whether TLS has ended well.

    `kept`: what has happened since TLS ended, for whoever takes the connection over.
    """

    def __init__(self, place: str, timeout: float) -> None:
        self.kept: dict[quic.Event, None] = {}
        self.connected = False
        self._place, self._timeout = place, timeout
        self._certificate = b""
        self._failed: BridgeError | None = None
        self._over = trio.Event()

    def happened(self, event: quic.Event) -> None:
        """See `endpoint.Owner`."""
        if event[0] == quic.LOST and not self._over.is_set():
            self._fail(handshake_error(self._place, event[1], event[2], event[3], self._timeout))
        elif event[0] == quic.CONNECTED:
            self.connected = True
            self._certificate = event[3]
            self._over.set()
        elif len(self.kept) < _KEPT or event[0] == quic.LOST:
            self.kept[event] = None  # a stream that is readable twice is readable

    def settled(self) -> None:
        """See `endpoint.Owner`."""

    def broken(self, reason: str) -> None:
        """See `endpoint.Owner`."""
        self._fail(ConnectionLost(f"{self._place}: the handshake was given up ({reason})"))

    def _fail(self, problem: BridgeError) -> None:
        self._failed = self._failed or problem
        self._over.set()

    async def finish(self, line: Line, us: PeerId, expected: PeerId | None) -> PeerId:
        """The peer. Raises DialTimeout after the time it was given, AuthenticationFailed (also when it is ourselves),
        WrongPeer, and what `reasons.handshake_error` makes. The line is closed on every failure and on cancellation."""
        try:
            # All of X.509 takes 1 MiB: it is loaded by the first handshake, while the peer's answer is on its way.
            from punchbridge.wire.tls_identity import verify_certificate

            with trio.move_on_after(self._timeout) as patience:
                await self._over.wait()
            if patience.cancelled_caught and not self._over.is_set():
                raise DialTimeout(f"{self._place}: no answer within {self._timeout:g} s")
            if self._failed is not None:
                raise self._failed
            peer = verify_certificate(self._certificate, datetime.now(UTC), expected)
            if peer == us:
                raise AuthenticationFailed("the peer is ourselves: an address of our own was dialled")
            return peer
        except BaseException:
            line.close(OTHER, b"")
            raise
