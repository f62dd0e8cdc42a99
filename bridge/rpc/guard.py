"""The guard: a server interceptor that refuses RPCs no peer stands behind. For sync and for asyncio servers.

`serve` already takes the socket's name away, so this is the second lock: it also refuses a process of the same user
that is allowed to trace this one. It knows the table of pumps and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from punchbridge.local.peer import TABLE

__all__ = ["aio_guard", "guard"]

Allow = Callable[[str], bool]
_TEXT = "this server is reached through its bridge only"
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def guard(allow: Allow | None = None) -> grpc.ServerInterceptor:  # type: ignore[type-arg]
    """For `grpc.server(..., interceptors=[punchbridge.guard()])`: refuses with UNAUTHENTICATED whoever is no peer.

    allow: is asked with `context.peer()` of calls that came another way (the server's own TCP port, say).
    """
    return _Guard(allow)


def aio_guard(allow: Allow | None = None) -> grpc.aio.ServerInterceptor:  # type: ignore[type-arg]
    """As `guard`, for `grpc.aio.server(..., interceptors=[punchbridge.aio_guard()])`."""
    return _AioGuard(allow)


def _known(context: Any, allow: Allow | None) -> bool:
    name = context.peer()
    return TABLE.find(name) is not None or (allow is not None and allow(name))


def _wrapped(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """The method handler with its one behaviour wrapped."""
    for kind in _KINDS:
        behaviour = getattr(handler, kind)
        if behaviour is not None:
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            return make(
                wrap(behaviour),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
    return handler


class _Guard(grpc.ServerInterceptor):  # type: ignore[type-arg]
    def __init__(self, allow: Allow | None) -> None:
        self._allow = allow

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        return None if handler is None else _wrapped(handler, self._checked)

    def _checked(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def checked(request: Any, context: Any) -> Any:
            if not _known(context, self._allow):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, _TEXT)
            return behaviour(request, context)

        return checked


class _AioGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    def __init__(self, allow: Allow | None) -> None:
        self._allow = allow

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        return None if handler is None else _wrapped(handler, self._checked)

    def _checked(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        # grpc.aio looks at the kind of function to decide how to run it: the wrapper must be of the same kind.
        allow = self._allow

        async def responses(request: Any, context: Any) -> AsyncIterator[Any]:
            if not _known(context, allow):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, _TEXT)
            async for response in behaviour(request, context):
                yield response

        async def response(request: Any, context: Any) -> Any:
            if not _known(context, allow):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, _TEXT)
            return await behaviour(request, context)

        def blocking(request: Any, context: Any) -> Any:
            if not _known(context, allow):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, _TEXT)
            return behaviour(request, context)

        if inspect.isasyncgenfunction(behaviour):
            return responses
        return response if inspect.iscoroutinefunction(behaviour) else blocking
