"""Puts a check before the handlers of a grpc server: of sync and of asyncio servers, of all four kinds of calls.

The check is asked with the call's context, before the handler runs; what it answers ends the call. It knows no rule
itself.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

__all__ = ["CallRefusal", "Check", "aio_checked", "aio_unknown", "checked", "unknown"]


@dataclass(frozen=True)
class CallRefusal:
    """How a call ends that is refused: its status and trailing metadata."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[tuple[str, str], ...] = ()


Check = Callable[[Any], CallRefusal | None]
"""Asked with the context of a call. None lets it through; what is raised ends the call with UNKNOWN."""

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def checked(handler: Any, check: Check) -> Any:
    """The method handler of a sync server, with the check before its behaviour."""
    return _wrapped(handler, lambda behaviour, _: _blocking(behaviour, check))


def aio_checked(handler: Any, check: Check) -> Any:
    """The method handler of an asyncio server, with the check before its behaviour."""
    return _wrapped(handler, lambda behaviour, streams: _aio(behaviour, streams, check))


def unknown(check: Check) -> Any:
    """A handler for a method that a sync server does not have: the check comes first, then UNIMPLEMENTED.

    Without it a caller could tell which methods exist from those that it may not call.
    """

    def nothing(_: Any, context: Any) -> Iterator[bytes]:
        _end(context, CallRefusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))

    return checked(grpc.stream_stream_rpc_method_handler(nothing), check)


def aio_unknown(check: Check) -> Any:
    """As `unknown`, for an asyncio server."""

    async def nothing(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    return aio_checked(grpc.stream_stream_rpc_method_handler(nothing), check)


def _wrapped(handler: Any, wrap: Callable[[Callable[..., Any], bool], Callable[..., Any]]) -> Any:
    """The method handler with its one behaviour wrapped; `wrap` is told whether it answers with a stream."""
    for kind in _KINDS:
        behaviour = getattr(handler, kind)
        if behaviour is not None:
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            return make(
                wrap(behaviour, kind.endswith("_stream")),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
    return handler


def _end(context: Any, refusal: CallRefusal) -> NoReturn:
    context.set_trailing_metadata(refusal.trailing)
    context.abort(refusal.code, refusal.details)
    raise AssertionError("abort returned")  # The handler must not run, whatever a context does.


def _blocking(behaviour: Callable[..., Any], check: Check) -> Callable[..., Any]:
    def response(request: Any, context: Any) -> Any:
        refusal = check(context)
        if refusal is not None:
            _end(context, refusal)
        return behaviour(request, context)

    return response


def _aio(behaviour: Callable[..., Any], streams: bool, check: Check) -> Callable[..., Any]:
    """grpc.aio looks at the kind of function to decide how to run it: the wrapper is of the same kind."""

    async def end(context: Any, refusal: CallRefusal) -> NoReturn:
        context.set_trailing_metadata(refusal.trailing)
        await context.abort(refusal.code, refusal.details)
        raise AssertionError("abort returned")

    async def asynchronous_responses(request: Any, context: Any) -> AsyncIterator[Any]:
        refusal = check(context)
        if refusal is not None:
            await end(context, refusal)
        async for response in behaviour(request, context):
            yield response

    async def asynchronous_response(request: Any, context: Any) -> Any:
        refusal = check(context)
        if refusal is not None:
            await end(context, refusal)
        return await behaviour(request, context)

    def responses(request: Any, context: Any) -> Iterator[Any]:
        # grpc.aio calls a blocking function that answers with a stream in the event loop, and only its iterator in a
        # thread. An abort waits for the event loop, so it stands inside the iterator.
        refusal = check(context)
        if refusal is not None:
            _end(context, refusal)
        yield from behaviour(request, context)

    if inspect.isasyncgenfunction(behaviour):
        return asynchronous_responses
    if inspect.iscoroutinefunction(behaviour):
        return asynchronous_response
    return responses if streams else _blocking(behaviour, check)
