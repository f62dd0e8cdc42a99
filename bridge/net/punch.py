"""TCP simultaneous open from the listening port: dials that stay outstanding, accepted sockets beside them.

The rules are those of measured kernels and NATs (docs/troubleshooting.md): one dial per candidate stays outstanding;
it is renewed only after an error, on another socket, after a random pause; sockets that were accepted meanwhile are
tried in parallel; and a socket counts only when its taker says so, after a round trip above TCP. What a taker does
with a socket (security, roles, peer ids) is unknown here.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, TypeVar

import trio

from bridge.addresses import Endpoint, Multiaddr, endpoint_of
from bridge.errors import AddressError
from bridge.limits.punch import DCUTR_LOSER_GRACE, MAX_PUNCH_DIALS, MAX_PUNCH_SOCKETS, REDIAL_MAX, REDIAL_MIN
from bridge.net.tcp import TcpStream, bound_socket
from bridge.protocol.verdict import Evidence

__all__ = ["How", "SimultaneousOpen", "Source"]

T = TypeVar("T")
How = Literal["connect", "accept"]
Source = Callable[[Endpoint], tuple[str, int] | None]
"""The local (ip, port) to dial an endpoint from; None means any port."""

_LOCAL = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EAFNOSUPPORT, errno.EADDRINUSE, errno.EADDRNOTAVAIL}
_NO_ROUTE = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH}
_AT_ONCE = 0.001
"""A "no route" that takes less than this (s) came from our own routing table, not from a packet."""
_LOCAL_PAUSE = 10
"""Redials that failed before a packet left wait this many times longer: nothing out there has changed."""


class SimultaneousOpen(Generic[T]):
    """One attempt. `take` judges each socket that stands and owns it: it returns the prize, or None for another try.

    Takers run in `nursery`, so that they can outlast the attempt: with `keep_losers` those still running after the
    win have DCUTR_LOSER_GRACE seconds more (the other side may have chosen one of them); without it they are
    cancelled. Nothing else outlives `run`.
    """

    def __init__(
        self,
        candidates: Sequence[Multiaddr],
        *,
        source: Source,
        take: Callable[[TcpStream, How], Awaitable[T | None]],
        evidence: Evidence,
        nursery: trio.Nursery,
        keep_losers: bool,
        rng: random.Random,
    ) -> None:
        self._candidates = tuple(_numeric(addr) for addr in candidates)
        self._source = source
        self._take = take
        self._evidence = evidence
        self._nursery = nursery
        self._keep_losers = keep_losers
        self._rng = rng
        self._dials_left = MAX_PUNCH_DIALS
        self._scopes: set[trio.CancelScope] = set()
        self._prize: T | None = None
        self._won = trio.Event()

    @property
    def busy(self) -> bool:
        """A socket stands and its taker has not decided yet."""
        return bool(self._scopes)

    async def run(self, accepted: trio.MemoryReceiveChannel[TcpStream], start: trio.Event) -> T:
        """Takes accepted sockets at once and dials from `start` on, until a taker returns a prize.

        Runs for ever without one: the caller sets the deadline. Cancellation closes all sockets not handed to a
        taker and cancels the takers.
        """
        try:
            async with trio.open_nursery() as dials:
                dials.start_soon(self._accept, accepted)
                dials.start_soon(self._dial_all, start)
                await self._won.wait()
                dials.cancel_scope.cancel()
        finally:
            self._end_takers()
        assert self._prize is not None
        return self._prize

    def _end_takers(self) -> None:
        for scope in tuple(self._scopes):
            if self._won.is_set() and self._keep_losers:
                scope.deadline = min(scope.deadline, trio.current_time() + DCUTR_LOSER_GRACE)
            else:
                scope.cancel()

    async def _accept(self, accepted: trio.MemoryReceiveChannel[TcpStream]) -> None:
        async for stream in accepted:
            self._evidence.sockets += 1
            if len(self._scopes) >= MAX_PUNCH_SOCKETS:
                stream.abort()
                continue
            self._hand_over(stream, "accept")

    async def _dial_all(self, start: trio.Event) -> None:
        await start.wait()
        async with trio.open_nursery() as nursery:
            for endpoint in self._candidates:
                nursery.start_soon(self._dial, endpoint)

    async def _dial(self, endpoint: Endpoint) -> None:
        """Dials one candidate, again and again after errors, never while a dial or its socket is alive."""
        while self._dials_left > 0:
            self._dials_left -= 1
            sock = await self._connect(endpoint)
            pause = self._rng.uniform(REDIAL_MIN, REDIAL_MAX)
            if isinstance(sock, TcpStream):
                self._evidence.sockets += 1
                await self._hand_over(sock, "connect").wait()
            elif sock == "local":
                pause *= _LOCAL_PAUSE
            await trio.sleep(pause)

    async def _connect(self, endpoint: Endpoint) -> TcpStream | Literal["remote", "local"]:
        """One dial on a socket of its own. Returns the stream, or on whose side it failed."""
        family = socket.AF_INET if endpoint.kind == "ip4" else socket.AF_INET6
        began = trio.current_time()
        sock: trio.socket.SocketType | None = None
        try:
            sock = bound_socket(family, *(self._source(endpoint) or (("0.0.0.0", "::")[endpoint.kind == "ip6"], 0)))
            await sock.connect((endpoint.host, endpoint.port))
            stream = TcpStream(sock)
        except OSError as problem:
            if sock is not None:
                sock.close()
            return self._failed(problem, trio.current_time() - began)
        except BaseException:
            # Still outstanding when the attempt ended: the SYN was sent and nothing came back.
            self._evidence.dials += 1
            if sock is not None:
                sock.close()
            raise
        self._evidence.dials += 1
        if stream.local == stream.remote:  # a simultaneous open with ourselves
            stream.abort()
            return self._failed(OSError(errno.EADDRNOTAVAIL, "self"), 0.0)
        return stream

    def _failed(self, problem: OSError, seconds: float) -> Literal["remote", "local"]:
        """EADDRNOTAVAIL means that this 4-tuple is taken: the listener has the connection, look at accept()."""
        number = problem.errno or 0
        name = errno.errorcode.get(number, "OSError")
        if number in _LOCAL or (number in _NO_ROUTE and seconds < _AT_ONCE):
            self._evidence.local_errors[name] += 1
            return "local"
        self._evidence.dials += 1
        self._evidence.errors[name] += 1
        return "remote"

    def _hand_over(self, stream: TcpStream, how: How) -> trio.Event:
        """Starts the taker; the event is set when it is done."""
        done, scope = trio.Event(), trio.CancelScope()
        self._scopes.add(scope)
        self._nursery.start_soon(self._run_taker, stream, how, scope, done)
        return done

    async def _run_taker(self, stream: TcpStream, how: How, scope: trio.CancelScope, done: trio.Event) -> None:
        try:
            with scope:
                prize = await self._take(stream, how)
                if prize is not None and not self._won.is_set():
                    self._prize = prize
                    self._won.set()
        except BaseException:
            stream.abort()
            raise
        finally:
            if scope.cancelled_caught:
                stream.abort()
            self._scopes.discard(scope)
            done.set()


def _numeric(addr: Multiaddr) -> Endpoint:
    endpoint = endpoint_of(addr)
    if endpoint is None or endpoint.kind not in ("ip4", "ip6"):
        raise AddressError(f"{addr} is not an IP and TCP address")
    return endpoint
