"""The supervisor of callbacks: what an application's function raises is logged, and ends nothing else.

Knows events and functions, nothing of who emits them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from punchbridge.events import Event

__all__ = ["supervised"]

log = logging.getLogger(__name__)


def supervised(callback: Callable[[Event], None]) -> Callable[[Event], None]:
    """An exception of the application's is logged and never reaches the emitter."""

    def subscriber(event: Event) -> None:
        try:
            callback(event)
        except Exception:
            log.exception("the event callback failed on %s", event.name)

    return subscriber
