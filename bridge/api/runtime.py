"""The network thread: one daemon thread that runs trio, and calls into it from any other thread.

It knows nothing of what runs there: it is given an async context manager whose value lives as long as the thread. A
call that is interrupted in its own thread is cancelled in the network thread; every pending call ends when the thread
ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import trio

from punchbridge.config import Times
from punchbridge.errors import ConfigError, DialTimeout, SwarmStopped

__all__ = ["NetworkThread"]

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class NetworkThread(Generic[T]):
    """Runs `trio.run` around one resource in a daemon thread. Start after any fork: a child has no such thread."""

    def __init__(self, open_resource: Callable[[], AbstractAsyncContextManager[T]], times: Times | None = None) -> None:
        """`times`: how long opening and closing the resource may take."""
        self._open_resource = open_resource
        self._times = times or Times()
        self._opened: Future[T] = Future()
        self._stopping = False
        self._pid = os.getpid()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._stop_asked = trio.Event()
        self._pending: set[Future[object]] = set()
        self._thread = threading.Thread(target=self._run, name="punchbridge", daemon=True)

    # --- in the caller's thread ---------------------------------------------------------------------------

    def start(self) -> T:
        """Starts the thread and waits for the resource. Raises what opening it raised, ConfigError at the time-out."""
        self._thread.start()
        # A program that ends without closing: peers are told, and the private directory goes, all the same.
        atexit.register(self.stop)
        try:
            return self._opened.result(self._times.start)
        except FutureTimeout:
            self.stop()
            raise ConfigError(f"the network thread did not start within {self._times.start:g} s") from None
        except BaseException:  # what opening found, or an interrupt: the thread must not stay
            self.stop()
            raise

    def stop(self) -> None:
        """Closes the resource and joins the thread, for at most the seconds that stopping may take. Idempotent."""
        self._stopping = True
        atexit.unregister(self.stop)
        if self._pid != os.getpid():
            return
        token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._ask_to_stop)
            except trio.RunFinishedError:
                pass
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._times.stop)

    def submit(self, work: Callable[[], Awaitable[R]]) -> Future[R]:
        """Runs `work` in the network thread; cancelling the future cancels it there.

        Raises SwarmStopped when the thread has ended (or was left behind by a fork).
        """
        future: Future[R] = Future()
        token = self._token
        if self._stopping or token is None or self._pid != os.getpid():
            where = "in the process that was forked" if self._pid != os.getpid() else "already"
            raise SwarmStopped(f"the bridge is closed {where}; open another one")
        try:
            token.run_sync_soon(self._begin, work, future)
        except trio.RunFinishedError:
            raise SwarmStopped("the bridge is closed; open another one") from None
        return future

    def call(self, work: Callable[[], Awaitable[R]], seconds: float | None = None) -> R:
        """Runs `work` in the network thread and waits for its result.

        Raises what it raised, DialTimeout after `seconds`, SwarmStopped when the thread ends first. An interrupt of
        the waiting thread (KeyboardInterrupt) cancels the work.
        """
        if self._thread is threading.current_thread():
            raise ConfigError("a blocking call from the network thread (an event callback?) would wait for itself")
        future = self.submit(work)
        try:
            return future.result(seconds)
        except FutureTimeout:
            if future.done():
                raise
            raise DialTimeout(f"no answer within {seconds:g} s") from None
        finally:
            future.cancel()

    def ask(self, question: Callable[[], R]) -> R:
        """As `call`, for a question that is answered at once."""

        async def work() -> R:
            await trio.lowlevel.checkpoint()
            return question()

        return self.call(work)

    # --- in the network thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as problem:  # noqa: ASYNC103 - a named supervisor
            # The supervisor of the thread: its end reaches every caller, as the error or as SwarmStopped.
            if self._opened.done():
                log.critical("the network thread ended", exc_info=problem)
            else:
                self._opened.set_exception(_single(problem))
        finally:
            self._stopping = True
            if not self._opened.done():
                self._opened.set_exception(SwarmStopped("the bridge was closed before it had started"))
            for future in tuple(self._pending):
                _fail(future, SwarmStopped("the bridge was closed"))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            if self._stopping:
                return
            async with self._open_resource() as resource, trio.open_nursery() as nursery:
                self._nursery = nursery
                self._opened.set_result(resource)
                try:
                    await self._stop_asked.wait()
                finally:
                    # When the resource failed too: a call that comes while it closes has no nursery to run in.
                    self._nursery = None
                nursery.cancel_scope.cancel()

    def _ask_to_stop(self) -> None:
        if self._nursery is None:
            self._scope.cancel()
        else:
            # The resource closes in order (connections say goodbye), but not for ever.
            self._scope.deadline = trio.current_time() + 0.9 * self._times.stop
            self._stop_asked.set()

    def _begin(self, work: Callable[[], Awaitable[R]], future: Future[R]) -> None:
        if self._nursery is None or self._stopping:
            _fail(future, SwarmStopped("the bridge was closed"))
        else:
            self._nursery.start_soon(self._carry_out, work, future)

    async def _carry_out(self, work: Callable[[], Awaitable[R]], future: Future[R]) -> None:
        """The supervisor of calls: every exception of a call belongs to its caller, none may end the thread."""
        token = trio.lowlevel.current_trio_token()
        self._pending.add(future)  # type: ignore[arg-type]
        try:
            with trio.CancelScope() as scope:

                def cancelled(done: Future[R]) -> None:
                    if done.cancelled():
                        try:
                            token.run_sync_soon(scope.cancel)
                        except trio.RunFinishedError:
                            pass

                future.add_done_callback(cancelled)
                try:
                    result = await work()
                except trio.Cancelled:
                    _fail(future, SwarmStopped("the bridge was closed"))
                    raise
                except Exception as problem:  # noqa: BLE001 - a named supervisor
                    _fail(future, _single(problem))
                except BaseExceptionGroup as group:  # an error beside a cancellation: only the latter travels on
                    ordinary, rest = group.split(Exception)
                    _fail(future, SwarmStopped("the bridge was closed") if ordinary is None else _single(ordinary))
                    if rest is not None:
                        raise rest from None
                else:
                    if future.set_running_or_notify_cancel():
                        future.set_result(result)
        finally:
            self._pending.discard(future)


def _fail(future: Future[R], problem: BaseException) -> None:
    # A future that its caller cancelled in this very moment has nobody left to tell.
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(problem)


def _single(problem: BaseException) -> BaseException:
    """The one exception inside groups of one: callers of a blocking call expect the error itself."""
    while isinstance(problem, BaseExceptionGroup) and len(problem.exceptions) == 1:
        problem = problem.exceptions[0]
    return problem
