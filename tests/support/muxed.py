"""The class behind a connection, for tests that look below what a transport promises, and cutting connections."""

from __future__ import annotations

from collections.abc import Iterable

from punchbridge.transport import base
from punchbridge.transport.muxed.connection import MuxedConnection


def muxed(connection: base.Connection) -> MuxedConnection:
    """The same connection, as the class that shares Noise and Yamux over a byte stream."""
    assert isinstance(connection, MuxedConnection)
    return connection


def cut(connections: Iterable[base.Connection]) -> None:
    """Aborts each of them."""
    for one in connections:
        one.abort("CUT")
