"""The named supervisors: the places where an error that is not ours ends a task or a callback, not the program.

A stream handler and an event callback belong to the application, and what a connection reads comes from strangers; a
fault in either is logged with its traceback and costs that stream, connection or call alone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from punchbridge.tasks.failures import NETWORK_FAILURES

__all__ = ["guarded", "report", "supervise"]

T = TypeVar("T")

_EXPECTED = (*NETWORK_FAILURES, EOFError)
"""How a stream or connection ends in the ordinary course of a network's life; applications raise the last one."""

_log = logging.getLogger(__name__)
_seen: set[tuple[str, str]] = set()


async def supervise(what: str, work: Callable[[], Awaitable[None]], failed: Callable[[str], None]) -> None:
    """Runs `work`. Expected errors are logged at debug level, others with a traceback the first time they appear
    for this `what` (then in one line); both end in `failed(reason)`. Cancellation passes through after `failed`."""
    try:
        await work()
    except _EXPECTED as problem:
        _log.debug("%s ended: %s: %s", what, type(problem).__name__, problem)
        failed(getattr(problem, "code", type(problem).__name__))
    except BaseExceptionGroup as group:
        failed("CANCELLED" if group.subgroup(trio.Cancelled) else "INTERNAL")
        rest = _without_expected(what, group)
        if rest is not None:
            raise rest from None
    except Exception as problem:  # noqa: BLE001 - the named supervisor
        report(what, problem)
        failed("INTERNAL")
    except BaseException:
        failed("CANCELLED")
        raise


def _without_expected(what: str, group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Logs the ordinary exceptions of a group; what remains (cancellation, KeyboardInterrupt) must travel on."""
    ordinary, rest = group.split(Exception)
    if ordinary is not None:
        expected, foreign = ordinary.split(_EXPECTED)
        if expected is not None:
            _log.debug("%s ended: %s", what, [repr(error) for error in expected.exceptions])
        if foreign is not None:
            report(what, foreign)
    return rest


def guarded(what: str, callback: Callable[[T], None]) -> Callable[[T], None]:
    """The callback of an application: what it raises is reported under `what` and never reaches the caller."""

    def call(value: T) -> None:
        try:
            callback(value)
        except Exception as problem:  # noqa: BLE001 - the named supervisor
            report(what, problem)

    return call


def report(what: str, problem: BaseException) -> None:
    """Logs a defect: the first time with its traceback, then in one line."""
    key = (what, type(problem).__name__)
    if key in _seen:
        _log.error("%s failed again: %s: %s", what, type(problem).__name__, problem)
        return
    if len(_seen) < 256:  # `what` names a protocol or a part of ours, so this set stays small
        _seen.add(key)
    _log.error("%s failed: this is a defect there, not in the network", what, exc_info=problem)
