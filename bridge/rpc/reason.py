"""Which failed RPCs failed because no stream could be opened, and what their status then says.

grpc's own words for it end at the unix socket ("failed to connect to all addresses … connection reset"); the reason
is the gateway's. Pure: codes and texts in, texts out.
"""

from __future__ import annotations

from typing import Protocol

from punchbridge.errors import BridgeError
from punchbridge.local.peer import ConnectInfo

__all__ = ["REASON_KEY", "HasError", "explanation"]

REASON_KEY = "punchbridge-error"
"""Trailing metadata key that carries the error's code, when the status was explained here."""

_NOT_CONNECTED = "failed to connect to all addresses"


class HasError(Protocol):
    """An endpoint, as seen from here."""

    @property
    def name(self) -> str:
        """The path of its unix socket."""

    @property
    def error(self) -> BridgeError | None:
        """The reason of its last failure; None after a success."""

    @property
    def info(self) -> ConnectInfo | None:
        """The peer on its newest live stream."""


def explanation(code_name: str, details: str | None, error: BridgeError | None) -> str | None:
    """The details that a status should have; None when it is not about our endpoint and stays as it is.

    code_name: the name of the grpc status code. UNAVAILABLE counts when grpc never had a connection;
    DEADLINE_EXCEEDED (an RPC with wait_for_ready) keeps its own words in front.
    """
    if error is None:
        return None
    reason = f"{error.code}: {error}"
    if code_name == "UNAVAILABLE" and details is not None and details.startswith(_NOT_CONNECTED):
        return reason
    if code_name == "DEADLINE_EXCEEDED":
        return f"{details or 'Deadline Exceeded'}; {reason}"
    return None
