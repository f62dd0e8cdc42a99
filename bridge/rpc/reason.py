"""Which failed RPCs failed because no stream could be opened, and what their status then says.

grpc's own words for it end at the unix socket ("failed to connect to all addresses … connection reset"); the reason
is the gateway's. Pure: codes and texts in, texts out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from punchbridge.errors import BridgeError, DirectRequired, NotAllowed

if TYPE_CHECKING:
    from punchbridge.local.gateway import OpenFailure
    from punchbridge.local.peer import ConnectInfo

__all__ = ["REASON_KEY", "RETRY_KEY", "VERDICT_KEY", "HasFailure", "explained_by", "explanation", "trailing"]

REASON_KEY = "punchbridge-error"
"""Trailing metadata key that carries the error's code, when the status was explained here."""

VERDICT_KEY = "punchbridge-verdict"
"""Beside it when a direct path was required: the code of the verdict."""

RETRY_KEY = "punchbridge-retry-in"
"""Beside that: seconds from the failure until the next run of punches begins by itself; absent when none follows."""

_NOT_CONNECTED = "failed to connect to all addresses"


class HasFailure(Protocol):
    """An endpoint, as seen from here."""

    @property
    def name(self) -> str:
        """The path of its unix socket."""

    @property
    def failure(self) -> OpenFailure | None:
        """Of its last attempt to open a stream; None after a success."""

    @property
    def info(self) -> ConnectInfo | None:
        """The peer on its newest live stream; None while no stream lives."""


def explained_by(code_name: str, details: str | None, endpoint: HasFailure, began: float) -> BridgeError | None:
    """The error that explains a status; None when the status is not about our endpoint.

    code_name: the name of the grpc status code. UNAVAILABLE counts when grpc never had a connection: the last attempt
    is the reason. So it does when the peer has struck us out since the RPC `began` (on `time.monotonic`).
    DEADLINE_EXCEEDED (an RPC with wait_for_ready) counts when an attempt has failed since the RPC began, or when no
    stream of the endpoint lives: an older failure is no reason for an RPC that was slow on a stream that works.
    """
    failure = endpoint.failure
    if failure is None:
        return None
    if code_name == "UNAVAILABLE" and details is not None and details.startswith(_NOT_CONNECTED):
        return failure.error
    if code_name == "UNAVAILABLE" and failure.at >= began and isinstance(failure.error, NotAllowed):
        return failure.error
    if code_name == "DEADLINE_EXCEEDED" and (failure.at >= began or endpoint.info is None):
        return failure.error
    return None


def explanation(code_name: str, details: str | None, error: BridgeError) -> str:
    """The details of a status that `error` explains; DEADLINE_EXCEEDED keeps its own words in front."""
    reason = f"{error.code}: {error}"
    return f"{details or 'Deadline Exceeded'}; {reason}" if code_name == "DEADLINE_EXCEEDED" else reason


def trailing(error: BridgeError) -> tuple[tuple[str, str], ...]:
    """The metadata that carries the reason: the error's code, and of a verdict its code and its pause."""
    told = [(REASON_KEY, error.code)]
    if isinstance(error, DirectRequired):
        told.append((VERDICT_KEY, error.verdict.code.value))
        if error.verdict.retry_in is not None:
            told.append((RETRY_KEY, f"{error.verdict.retry_in:g}"))
    return tuple(told)
