"""Bounds of TCP sockets and of name resolution."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB

ACCEPT_BACKLOG: Final = 128

SYN_ACK_RETRIES: Final = 2
"""A connection request whose SYN-ACK is not acknowledged leaves our listener after 7 s (the system's 5 retries: 63 s).
Until then its 4-tuple cannot be dialled (EADDRNOTAVAIL), which three attempts of a punch would not outlast."""

TCP_USER_TIMEOUT_MS: Final = 30_000
"""Unacknowledged data for this long ends the TCP connection (RFC 5482)."""

SEND_UNSENT: Final = 256 * KIB
"""Bytes the kernel holds that are not on the wire yet (TCP_NOTSENT_LOWAT), for the same reason."""

RESOLVE_TIMEOUT: Final = 5.0
"""One name lookup through the system resolver."""

MAX_RESOLVED: Final = 16
"""Addresses taken from one name."""
