"""The guard: a server interceptor that refuses RPCs no peer stands behind. For sync and for asyncio servers.

`serve` already takes the socket's name away, so this is the second lock: it also refuses a process of the same user
that is allowed to trace this one. It knows the table of pumps and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from punchbridge.local.peer import TABLE
from punchbridge.rpc.checked import CallRefusal, Check, aio_checked, checked

__all__ = ["UNBRIDGED", "Allow", "aio_guard", "guard"]

Allow = Callable[[str], bool]
"""Asked with `context.peer()` of a call that no peer stands behind; True lets it through."""

UNBRIDGED = CallRefusal(grpc.StatusCode.UNAUTHENTICATED, "this server is reached through its bridge only")


def guard(allow: Allow | None = None) -> grpc.ServerInterceptor:  # type: ignore[type-arg]
    """For `grpc.server(..., interceptors=[punchbridge.guard()])`: refuses with UNAUTHENTICATED whoever is no peer.

    allow: is asked with `context.peer()` of calls that came another way (the server's own TCP port, say).
    """
    return _Guard(allow)


def aio_guard(allow: Allow | None = None) -> grpc.aio.ServerInterceptor:  # type: ignore[type-arg]
    """As `guard`, for `grpc.aio.server(..., interceptors=[punchbridge.aio_guard()])`."""
    return _AioGuard(allow)


def _check(allow: Allow | None) -> Check:
    def check(context: Any) -> CallRefusal | None:
        name = context.peer()
        return None if TABLE.find(name) is not None or (allow is not None and allow(name)) else UNBRIDGED

    return check


class _Guard(grpc.ServerInterceptor):  # type: ignore[type-arg]
    def __init__(self, allow: Allow | None) -> None:
        self._check = _check(allow)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        return None if handler is None else checked(handler, self._check)


class _AioGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    def __init__(self, allow: Allow | None) -> None:
        self._check = _check(allow)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        return None if handler is None else aio_checked(handler, self._check)
