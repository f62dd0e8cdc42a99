"""The DCUtR stream of either side: messages over the relay, errors sorted into the codes of the verdict table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from punchbridge.errors import (
    BridgeError,
    ConnectionLost,
    LimitExceeded,
    NegotiationFailed,
    ProtocolViolation,
    StreamReset,
)
from punchbridge.transport.base import Connection
from punchbridge.verdict import Code

__all__ = ["Failed", "sorted_errors"]


class Failed(Exception):
    """The attempt ended with this code before or beside the simultaneous open. Stays inside this package."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code.value)
        self.code = code
        self.detail = detail


@contextmanager
def sorted_errors(relayed: Connection) -> Iterator[None]:
    """Turns what a stream over the relay raises into Failed."""
    try:
        yield
    except ProtocolViolation as problem:
        raise Failed(Code.PROTOCOL, str(problem)) from None
    except NegotiationFailed as problem:
        raise Failed(Code.PEER_UNSUPPORTED, str(problem)) from None
    except LimitExceeded as problem:
        raise Failed(Code.UNKNOWN, str(problem)) from None
    except trio.TooSlowError:
        raise Failed(Code.RELAY_LOST if relayed.closed.is_set() else Code.PEER_SILENT) from None
    except (StreamReset, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
        lost = isinstance(problem, ConnectionLost) or relayed.closed.is_set()
        raise Failed(Code.RELAY_LOST if lost else Code.PEER_REFUSED) from None
    except BridgeError as problem:
        raise Failed(Code.UNKNOWN, str(problem)) from None
