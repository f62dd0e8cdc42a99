"""A grpc.Channel whose status tells why the peer could not be reached.

Everything is the inner channel's; only the error of an RPC that never found a connection is replaced by one that
carries the typed reason. It opens nothing and knows no peer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from punchbridge.errors import BridgeError
from punchbridge.local.peer import ConnectInfo
from punchbridge.rpc.credentials import Channels, Method, channels
from punchbridge.rpc.options import Options
from punchbridge.rpc.reason import HasFailure, explained_by, explanation, trailing

__all__ = ["DialFailed", "ReasonedChannel", "open_channel"]


class DialFailed(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """What an RPC raises when no stream to the peer could be opened. `reason` is the typed error."""

    def __init__(self, inner: Any, details: str, reason: BridgeError) -> None:
        super().__init__(details)
        self._inner = inner
        self._details = details
        self.reason = reason
        self.__cause__ = reason

    def code(self) -> Any:
        return self._inner.code()

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> Any:
        return self._inner.initial_metadata()

    def trailing_metadata(self) -> Any:
        return (*(self._inner.trailing_metadata() or ()), *trailing(self.reason))

    def debug_error_string(self) -> str:
        return f"{self._details} ({self._inner.debug_error_string()})"

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)

    def result(self, timeout: float | None = None) -> Any:
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        return self.__traceback__

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self.code()}: {self._details}>"

    __repr__ = __str__


def _explain(problem: Any, endpoint: HasFailure, began: float) -> Any:
    """The error to raise in place of `problem`; the same one when there is nothing to explain."""
    if isinstance(problem, DialFailed):
        return problem
    reason = explained_by(problem.code().name, problem.details(), endpoint, began)
    return problem if reason is None else DialFailed(problem, _details(problem, reason), reason)


def _details(call: Any, reason: BridgeError) -> str:
    return explanation(call.code().name, call.details(), reason)


def _fail(problem: Any, endpoint: HasFailure, began: float) -> NoReturn:
    # No `from`: an explained error has the typed one as its cause already.
    raise _explain(problem, endpoint, began)


class _ReasonedCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call in progress: of a stream of responses, or the future of a single one."""

    def __init__(self, inner: Any, endpoint: HasFailure, began: float) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._began = began

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except grpc.RpcError as problem:
            _fail(problem, self._endpoint, self._began)

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self._inner.result(timeout)
        except grpc.RpcError as problem:
            _fail(problem, self._endpoint, self._began)

    def exception(self, timeout: float | None = None) -> Any:
        problem = self._inner.exception(timeout)
        return _explain(problem, self._endpoint, self._began) if isinstance(problem, grpc.RpcError) else problem

    def traceback(self, timeout: float | None = None) -> Any:
        return self._inner.traceback(timeout)

    def code(self) -> Any:
        return self._inner.code()

    def details(self) -> Any:
        told = self._inner.details()
        reason = explained_by(self.code().name, told, self._endpoint, self._began)
        return told if reason is None else _details(self._inner, reason)

    def initial_metadata(self) -> Any:
        return self._inner.initial_metadata()

    def trailing_metadata(self) -> Any:
        return self._inner.trailing_metadata()

    def is_active(self) -> bool:
        return bool(self._inner.is_active())

    def time_remaining(self) -> Any:
        return self._inner.time_remaining()

    def cancel(self) -> bool:
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def running(self) -> bool:
        return bool(self._inner.running())

    def done(self) -> bool:
        return bool(self._inner.done())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return bool(self._inner.add_callback(callback))

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self._inner.add_done_callback(lambda _: fn(self))


class _UnaryResponse(grpc.UnaryUnaryMultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    def __init__(self, method: Method, endpoint: HasFailure) -> None:
        self._method = method
        self._endpoint = endpoint

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        try:
            return self._method.of(args, kwargs)(*args, **kwargs)
        except grpc.RpcError as problem:
            _fail(problem, self._endpoint, began)

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        try:
            return self._method.of(args, kwargs).with_call(*args, **kwargs)
        except grpc.RpcError as problem:
            _fail(problem, self._endpoint, began)

    def future(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        return _ReasonedCall(self._method.of(args, kwargs).future(*args, **kwargs), self._endpoint, began)


class _StreamResponse(grpc.UnaryStreamMultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    def __init__(self, method: Method, endpoint: HasFailure) -> None:
        self._method = method
        self._endpoint = endpoint

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        return _ReasonedCall(self._method.of(args, kwargs)(*args, **kwargs), self._endpoint, began)


class ReasonedChannel(grpc.Channel):
    """grpc's channel with explained failures. Its connectivity is that of calls without credentials."""

    def __init__(self, inner: Channels, endpoint: HasFailure) -> None:
        self._inner = inner
        self._endpoint = endpoint

    @property
    def info(self) -> ConnectInfo | None:
        """The peer and its live path, on the newest stream to this target; None while there is none."""
        return self._endpoint.info

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        self._inner.plain.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._inner.plain.unsubscribe(callback)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _UnaryResponse(Method(self._inner, "unary_unary", args, kwargs), self._endpoint)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _StreamResponse(Method(self._inner, "unary_stream", args, kwargs), self._endpoint)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _UnaryResponse(Method(self._inner, "stream_unary", args, kwargs), self._endpoint)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _StreamResponse(Method(self._inner, "stream_stream", args, kwargs), self._endpoint)

    def close(self) -> None:
        for channel in self._inner.close():
            channel.close()

    def __enter__(self) -> ReasonedChannel:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def open_channel(
    endpoint: HasFailure,
    options: Options,
    compression: grpc.Compression | None = None,
    call_credentials: grpc.CallCredentials | None = None,
) -> ReasonedChannel:
    """A channel to the endpoint's unix socket; nothing is dialled before its first RPC."""
    target = f"unix:{endpoint.name}"
    inner = channels(
        lambda: grpc.insecure_channel(target, options, compression),
        lambda credentials: grpc.secure_channel(target, credentials, options, compression),
        call_credentials,
    )
    return ReasonedChannel(inner, endpoint)
