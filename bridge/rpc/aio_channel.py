"""A grpc.aio.Channel whose status tells why the peer could not be reached; the asyncio twin of `channel`.

Only what raises is wrapped, and by plain delegation: an interceptor would copy streams through queues.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, NoReturn, cast

import grpc
import grpc.aio

from punchbridge.local.peer import ConnectInfo
from punchbridge.rpc.credentials import Channels, Method, channels
from punchbridge.rpc.options import Options
from punchbridge.rpc.reason import HasFailure, explained_by, explanation, trailing

__all__ = ["ReasonedAioChannel", "open_aio_channel"]


def _explain(problem: grpc.aio.AioRpcError, endpoint: HasFailure, began: float) -> grpc.aio.AioRpcError:
    reason = explained_by(problem.code().name, problem.details(), endpoint, began)
    if reason is None:
        return problem
    details = explanation(problem.code().name, problem.details(), reason)
    metadata = grpc.aio.Metadata(*cast(Any, problem.trailing_metadata() or ()), *trailing(reason))
    said = f"{details} ({problem.debug_error_string()})"
    explained = grpc.aio.AioRpcError(problem.code(), problem.initial_metadata(), metadata, details, said)
    explained.__cause__ = reason
    return explained


def _fail(problem: grpc.aio.AioRpcError, endpoint: HasFailure, began: float) -> NoReturn:
    # No `from`: an explained error has the typed one as its cause already.
    raise _explain(problem, endpoint, began)


class _Call:
    """What the four kinds of calls have in common."""

    def __init__(self, inner: Any, endpoint: HasFailure, began: float) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._began = began

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        return bool(self._inner.done())

    def time_remaining(self) -> float | None:
        return self._inner.time_remaining()  # type: ignore[no-any-return]

    def cancel(self) -> bool:
        return bool(self._inner.cancel())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._inner.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> Any:
        return await self._inner.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self._inner.trailing_metadata()

    async def code(self) -> Any:
        return await self._inner.code()

    async def details(self) -> Any:
        told = await self._inner.details()
        name = (await self._inner.code()).name
        reason = explained_by(name, told, self._endpoint, self._began)
        return told if reason is None else explanation(name, told, reason)

    async def wait_for_connection(self) -> None:
        try:
            await self._inner.wait_for_connection()
        except grpc.aio.AioRpcError as problem:
            _fail(problem, self._endpoint, self._began)

    async def write(self, request: Any) -> None:
        try:
            await self._inner.write(request)
        except grpc.aio.AioRpcError as problem:
            _fail(problem, self._endpoint, self._began)

    async def done_writing(self) -> None:
        try:
            await self._inner.done_writing()
        except grpc.aio.AioRpcError as problem:
            _fail(problem, self._endpoint, self._began)


class _UnaryCall(_Call, grpc.aio.UnaryUnaryCall, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._inner.__await__())
        except grpc.aio.AioRpcError as problem:
            _fail(problem, self._endpoint, self._began)


class _StreamCall(_Call, grpc.aio.UnaryStreamCall, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    def __aiter__(self) -> AsyncIterator[Any]:
        return _Responses(self._inner.__aiter__(), self._endpoint, self._began)

    async def read(self) -> Any:
        try:
            return await self._inner.read()
        except grpc.aio.AioRpcError as problem:
            _fail(problem, self._endpoint, self._began)


class _Responses(AsyncIterator[Any]):
    def __init__(self, inner: AsyncIterator[Any], endpoint: HasFailure, began: float) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._began = began

    async def __anext__(self) -> Any:
        try:
            return await self._inner.__anext__()
        except grpc.aio.AioRpcError as problem:
            _fail(problem, self._endpoint, self._began)


class _Method(
    grpc.aio.UnaryUnaryMultiCallable,  # type: ignore[type-arg]
    grpc.aio.UnaryStreamMultiCallable,  # type: ignore[type-arg]
    grpc.aio.StreamUnaryMultiCallable,  # type: ignore[type-arg]
    grpc.aio.StreamStreamMultiCallable,  # type: ignore[type-arg]
):
    def __init__(self, method: Method, endpoint: HasFailure, wrapper: type[_Call]) -> None:
        self._method = method
        self._endpoint = endpoint
        self._wrapper = wrapper

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        return self._wrapper(self._method.of(args, kwargs)(*args, **kwargs), self._endpoint, began)


class ReasonedAioChannel(grpc.aio.Channel):
    """grpc's channel with explained failures. Its connectivity is that of calls without credentials."""

    def __init__(self, inner: Channels, endpoint: HasFailure) -> None:
        self._inner = inner
        self._endpoint = endpoint

    @property
    def info(self) -> ConnectInfo | None:
        """The peer and its live path, on the newest stream to this target; None while there is none."""
        return self._endpoint.info

    async def __aenter__(self) -> ReasonedAioChannel:
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self.close()  # noqa: ASYNC102 - asyncio has no cancel scopes

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(channel.close(grace) for channel in self._inner.close()))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return cast(grpc.ChannelConnectivity, self._inner.plain.get_state(try_to_connect))

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.plain.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.plain.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(Method(self._inner, "unary_unary", args, kwargs), self._endpoint, _UnaryCall)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(Method(self._inner, "unary_stream", args, kwargs), self._endpoint, _StreamCall)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(Method(self._inner, "stream_unary", args, kwargs), self._endpoint, _UnaryCall)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(Method(self._inner, "stream_stream", args, kwargs), self._endpoint, _StreamCall)


def open_aio_channel(
    endpoint: HasFailure,
    options: Options,
    compression: grpc.Compression | None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None,
    call_credentials: grpc.CallCredentials | None = None,
) -> ReasonedAioChannel:
    """As `channel.open_channel`, for the running event loop."""
    target = f"unix:{endpoint.name}"
    inner = channels(
        lambda: grpc.aio.insecure_channel(target, options, compression, interceptors),
        lambda credentials: grpc.aio.secure_channel(target, credentials, options, compression, interceptors),
        call_credentials,
    )
    return ReasonedAioChannel(inner, endpoint)
