"""TCP simultaneous open from the listening port: dials that stay outstanding, accepted sockets beside them.

The rules are those of measured kernels and NATs (docs/troubleshooting.md): one dial per candidate stays outstanding,
beyond the attempt's end (`punchbridge.transport.tcp.dial` says why); it is renewed only after an error, on another
socket, at random intervals; sockets that were accepted meanwhile are tried in parallel; and a socket counts only when
its taker says so, after a round trip above TCP. What a taker does with a socket (security, roles, peer ids) is unknown
here.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, TypeVar

import trio

from punchbridge.addresses import Endpoint, Multiaddr, endpoint_of
from punchbridge.config import PunchLimits, TcpLimits
from punchbridge.errors import AddressError
from punchbridge.reach.dials import AttemptDials
from punchbridge.reach.verdict import Evidence
from punchbridge.transport.tcp.dial import Dial, KeptDials, TupleTaken
from punchbridge.transport.tcp.sockets import TcpStream

__all__ = ["How", "SimultaneousOpen", "Source"]

T = TypeVar("T")
How = Literal["connect", "accept"]
Source = Callable[[Endpoint], tuple[str, int] | None]
"""The local (ip, port) to dial an endpoint from; None means any port."""

_LOCAL = {
    errno.EACCES, errno.EPERM, errno.EINVAL, errno.EAFNOSUPPORT, errno.EADDRINUSE, errno.EADDRNOTAVAIL,
    errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH,
}  # fmt: skip
"""Why a dial does not leave. Of one that left, a router's ICMP says that there is no way."""
_LOCAL_PAUSE = 10
"""Redials that failed before a packet left wait this many times longer: nothing out there has changed."""


class SimultaneousOpen(Generic[T]):
    """One attempt. `take` judges each socket that stands and owns it: it returns the prize, or None for another try.

    Takers run in `nursery`, so that they can outlast the attempt: with `keep_losers` those still running after the win
    have `limits.loser_grace` seconds more (the other side may have chosen one of them); without it they are cancelled.
    `budget` is asked before each dial; where it says `later` it is asked again after `limits.redial_most`. Dials come
    from `kept` where it has them, and those that are in the air at the end go there; its owner closes them. Nothing
    else outlives `run`.
    """

    def __init__(
        self,
        candidates: Sequence[Multiaddr],
        *,
        source: Source,
        kept: KeptDials,
        take: Callable[[TcpStream, How], Awaitable[T | None]],
        evidence: Evidence,
        nursery: trio.Nursery,
        keep_losers: bool,
        rng: random.Random,
        limits: PunchLimits,
        tcp: TcpLimits = TcpLimits(),
        budget: AttemptDials | None = None,
    ) -> None:
        self._candidates = tuple(_numeric(addr) for addr in candidates)
        self._source = source
        self._kept = kept
        self._take = take
        self._evidence = evidence
        self._nursery = nursery
        self._keep_losers = keep_losers
        self._rng = rng
        self._tcp = tcp
        self._budget = budget
        self._limits = limits
        self._dials_left = limits.dials
        self._scopes: set[trio.CancelScope] = set()
        self._prize: T | None = None
        self._won = trio.Event()

    @property
    def busy(self) -> bool:
        """A socket stands and its taker has not decided yet."""
        return bool(self._scopes)

    @property
    def prize(self) -> T | None:
        """What the first taker returned that had one; also when `run` was cancelled right behind it."""
        return self._prize

    async def run(self, accepted: trio.MemoryReceiveChannel[TcpStream], start: trio.Event) -> T:
        """Takes accepted sockets at once and dials from `start` on, until a taker returns a prize.

        Runs for ever without one: the caller sets the deadline. Cancellation cancels the takers, and puts dials in
        the air into `kept`.
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
                scope.deadline = min(scope.deadline, trio.current_time() + self._limits.loser_grace)
            else:
                scope.cancel()

    async def _accept(self, accepted: trio.MemoryReceiveChannel[TcpStream]) -> None:
        async for stream in accepted:
            self._evidence.sockets += 1
            if len(self._scopes) >= self._limits.sockets:
                stream.discard()
                continue
            self._hand_over(stream, "accept")

    async def _dial_all(self, start: trio.Event) -> None:
        await start.wait()
        async with trio.open_nursery() as nursery:
            for endpoint in self._candidates:
                nursery.start_soon(self._dial, endpoint)

    async def _dial(self, endpoint: Endpoint) -> None:
        """Dials one candidate, again and again after errors, never while a dial or its socket is alive."""
        source = self._source(endpoint)
        dial = self._kept.take(endpoint, source)
        while dial is not None or self._dials_left > 0:
            began = trio.current_time()
            try:
                if dial is None:
                    permit = "yes" if self._budget is None else self._budget.ask(endpoint, began)
                    if permit == "never":
                        self._note_given_up(endpoint)
                        return
                    if permit == "later":
                        await trio.sleep(self._limits.redial_most)
                        continue
                    self._dials_left -= 1
                    dial = Dial(endpoint, source, self._tcp)
                await self._see_through(dial)
            except OSError as problem:
                # At once if it was a while under way: after an ICMP error the mapping stays open, and while no dial
                # is outstanding the peer's SYN comes through to the listener (see punchbridge.transport.tcp.dial).
                left = dial is not None
                again = began + (self._refused(endpoint, problem) if left else self._failed_here(endpoint, problem))
            else:
                again = trio.current_time() + self._jitter()
            dial = None
            await trio.sleep_until(again)

    async def _see_through(self, dial: Dial) -> None:
        """Until the dial's taker is done. Raises OSError when it failed; it is kept when the attempt ends before."""
        try:
            stream = await dial.wait()
        except trio.Cancelled:
            self._evidence.dials += 1  # the SYN was sent and nothing came back
            self._kept.keep(dial)
            raise
        if stream.local == stream.remote:
            stream.discard()
            self._evidence.local_errors["EADDRNOTAVAIL"] += 1  # a simultaneous open with ourselves
            return
        self._evidence.dials += 1
        self._evidence.sockets += 1
        await self._hand_over(stream, "connect").wait()

    def _jitter(self) -> float:
        return self._rng.uniform(self._limits.redial_least, self._limits.redial_most)

    def _note_given_up(self, endpoint: Endpoint) -> None:
        """An address that refused an earlier attempt so often that this one does not dial it has the same to say."""
        error = "" if self._budget is None else self._budget.given_up(endpoint)
        if error and not self._evidence.errors[error]:
            self._evidence.errors[error] += 1

    def _refused(self, endpoint: Endpoint, problem: OSError) -> float:
        """Notes that a dial was answered by an error; returns how long after its start (s) the next may follow."""
        if self._budget is not None:
            self._budget.refused(endpoint, _name(problem))
        self._evidence.dials += 1
        self._evidence.errors[_name(problem)] += 1
        return self._jitter()

    def _failed_here(self, endpoint: Endpoint, problem: OSError) -> float:
        """The same for a dial that did not leave: what is the matter here will take longer."""
        if self._budget is not None:
            self._budget.unused(endpoint)
        if isinstance(problem, TupleTaken):
            self._evidence.taken += 1  # our listener has the connection: look at accept()
        elif problem.errno in _LOCAL:
            self._evidence.local_errors[_name(problem)] += 1
        else:
            return self._refused(endpoint, problem)
        return self._jitter() * _LOCAL_PAUSE

    def _hand_over(self, stream: TcpStream, how: How) -> trio.Event:
        """Starts the taker; the event is set when it is done."""
        done, scope = trio.Event(), trio.CancelScope()
        self._scopes.add(scope)
        self._nursery.start_soon(self._run_taker, stream, how, scope, done)
        return done

    async def _run_taker(self, stream: TcpStream, how: How, scope: trio.CancelScope, done: trio.Event) -> None:
        judged = False
        try:
            with scope:
                prize = await self._take(stream, how)
                judged = True
                if prize is not None and not self._won.is_set():
                    self._prize = prize
                    self._won.set()
        finally:
            if not judged:
                stream.discard()
            self._scopes.discard(scope)
            done.set()


def _name(problem: OSError) -> str:
    return errno.errorcode.get(problem.errno or 0, "OSError")


def _numeric(addr: Multiaddr) -> Endpoint:
    endpoint = endpoint_of(addr)
    if endpoint is None or endpoint.kind not in ("ip4", "ip6") or endpoint.proto != "tcp":
        raise AddressError(f"{addr} is not an IP and TCP address")
    return endpoint
