"""Why a QUIC connection ended, in the house's words: the reason of an established one, the error of a handshake.

The codes are those of RFC 9000 section 20.1; an alert of TLS is 0x100 plus its number (RFC 8446 section 6).
"""

from __future__ import annotations

from typing import Final

import punchbridge_quic as quic

from punchbridge.errors import (
    AuthenticationFailed,
    BridgeError,
    ConnectionLost,
    DialTimeout,
    NegotiationFailed,
    NotAllowed,
    ProtocolViolation,
    Unreachable,
)

__all__ = ["GATED", "GOODBYE", "OTHER", "SILENT", "close_reason", "handshake_error"]

GOODBYE: Final = 0
"""The code of a connection that ends in good order; go and rust have the same."""
GATED: Final = 0x1007
"""The peer is not let in: go-libp2p's code of a connection that its gater closes."""
OTHER: Final = 1
"""The code of one that is cut here. The peer is not told why."""

SILENT: Final = "KEEPALIVE_TIMEOUT"

_REFUSED: Final = 0x02
_TLS: Final = range(0x100, 0x200)
_NO_APPLICATION_PROTOCOL: Final = 0x100 + 120


def close_reason(cause: int, code: int) -> str:
    """The stable word for the end of an established connection."""
    if cause == quic.BY_CLOSE and code == GOODBYE:
        return "CLOSED_BY_PEER"
    if cause == quic.BY_CLOSE and code == GATED:
        return NotAllowed.code
    if cause == quic.BY_SILENCE:
        return SILENT
    return "PROTOCOL" if cause == quic.BY_VIOLATION else "CONNECTION_LOST"


def handshake_error(place: str, cause: int, code: int, reason: bytes, timeout: float) -> BridgeError:
    """What a handshake that failed is to the rooms above. `place`: with whom; `timeout`: how long it took at most."""
    said = reason.decode("ascii", "replace")[:200]
    detail = f"code {code:#x}{f', {said}' if said.isprintable() and said else ''}"
    if cause == quic.BY_SILENCE:
        return DialTimeout(f"{place}: no answer within {timeout:g} s")
    if cause == quic.BY_VERSION:
        return NegotiationFailed(f"{place} speaks no version of QUIC that is spoken here")
    if code == _NO_APPLICATION_PROTOCOL and cause in (quic.BY_VIOLATION, quic.BY_ABORT):
        return NegotiationFailed(f"{place} speaks QUIC, but not libp2p ({detail})")
    if code in _TLS and cause in (quic.BY_VIOLATION, quic.BY_ABORT):
        who = "refused our certificate" if cause == quic.BY_ABORT else "cannot be authenticated"
        return AuthenticationFailed(f"{place} {who} ({detail})")
    if cause == quic.BY_ABORT and code == _REFUSED:
        return Unreachable(f"{place}: connection refused")
    if cause == quic.BY_VIOLATION:
        return ProtocolViolation(f"{place} broke the protocol ({detail})")
    return ConnectionLost(f"{place}: lost during the handshake ({detail})")
