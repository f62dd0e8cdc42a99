"""One QUIC connection to an authenticated peer: its streams are QUIC's own, its packets the endpoint's matter.

Knows no table of peers, no dialling, and no meaning of a protocol; the streams are the mux's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import punchbridge_quic as quic
import trio

from punchbridge.addresses import Endpoint, Multiaddr, addr_of, endpoint_of
from punchbridge.config import MuxedLimits, QuicLimits
from punchbridge.errors import ConnectionLost
from punchbridge.events import Path, Role
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.gauge import PathCounts
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.memory import Account
from punchbridge.transport.base import NOT_ALLOWED, Connection, OnRefused, OnStream, Supported, TransportName
from punchbridge.transport.numbers import next_id
from punchbridge.transport.quic.endpoint import Line
from punchbridge.transport.quic.openings import Openings
from punchbridge.transport.quic.reasons import GATED, GOODBYE, OTHER, close_reason
from punchbridge.transport.quic.streams import QuicStreams
from punchbridge.transport.raw import BrokenConnection, ShutOut
from punchbridge.transport.streams.mux import Mux
from punchbridge.transport.streams.stream import Stream
from punchbridge.wire.circuit import CircuitLimit
from punchbridge.wire.identify import IdentifyInfo

__all__ = ["QuicConnection", "Shaken"]

_HELD_TRIPS: Final = 12.0
"""Round trips: three probe timeouts, each of one with its variance, which begins at half of it and is counted four
times (RFC 9002 section 6.2.1), and of the time that the peer may delay an acknowledgement."""


@dataclass(frozen=True)
class Shaken:
    """A handshake that is over and whose certificate was checked."""

    line: Line
    peer: PeerId
    role: Role
    local: Multiaddr
    remote: Multiaddr
    inbound: bool


class QuicConnection:
    """See `base.Connection`. It owns its line from the start; what is told before `run` waits with the handshake."""

    follows = True

    __slots__ = (
        "__weakref__",
        "_close_timeout",
        "_closing_reason",
        "_elsewhere",
        "_following",
        "_host",
        "_info",
        "_line",
        "_moved",
        "_moved_after",
        "_moved_most",
        "_mux",
        "_nursery",
        "_openings",
        "_scope",
        "_shut_out",
        "_streams",
        "_turn",
        "account",
        "attested",
        "bytes_received",
        "close_reason",
        "closed",
        "heard",
        "id",
        "identified",
        "identify",
        "inbound",
        "limit",
        "local",
        "opened_at",
        "path",
        "peer",
        "punched",
        "relay",
        "remote",
        "role",
        "transport",
    )

    def __init__(
        self,
        shaken: Shaken,
        *,
        limits: QuicLimits,
        muxed: MuxedLimits,
        account: Account,
        moved: Callable[[Connection, Multiaddr], None] = lambda _connection, _before: None,
        turn: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """moved: called, with the address before, when the peer is known to receive at another one. turn: returns when
        it is this connection's turn to open streams."""
        self.id = next_id()
        self.peer, self.role, self.inbound = shaken.peer, shaken.role, shaken.inbound
        self.local, self.remote = shaken.local, shaken.remote
        self.path: Path = "direct"
        self.transport: TransportName = "quic"
        self.relay: PeerId | None = None
        self.limit: CircuitLimit | None = None
        self.attested: Multiaddr | None = None
        self.punched = False
        self.opened_at = trio.current_time()
        self.identify: IdentifyInfo | None = None
        self.identified = trio.Event()
        self.heard = trio.Event()
        self.closed = trio.Event()
        self.close_reason = ""
        self.bytes_received = shaken.line.bytes_received
        self.account = account
        self._line = shaken.line
        self._streams = QuicStreams(shaken.line, limits, account)
        self._mux = Mux(self, self._streams, muxed)
        self._openings, self._turn = Openings(self._open_late, self._begin_opening), turn
        self._info = shaken.line.engine.info(shaken.line.number)
        self._host = _host(shaken.remote)
        self._close_timeout = limits.close_timeout
        self._moved, self._following, self._elsewhere = moved, False, False
        self._moved_after, self._moved_most = limits.moved_after, limits.moved_most
        self._nursery: trio.Nursery | None = None
        self._closing_reason: str | None = None
        self._shut_out = False
        self._scope: trio.CancelScope | None = None
        account.peer = shaken.peer
        account.watch(self._streams.held, self._shed)

    def __repr__(self) -> str:
        return f"<QuicConnection {self.id} {self.role} {peer_text(self.peer)} {self.remote}>"

    def info(self) -> quic.Info:
        """What the engine knows of the path; of a closed connection, what it knew last."""
        if not self._line.gone:
            self._info = self._line.engine.info(self._line.number)
        return self._info

    @property
    def bytes_sent(self) -> int:
        """Bytes of datagrams."""
        return self._line.bytes_sent

    @property
    def rtt(self) -> float | None:
        """The round trip in seconds, smoothed, as the acknowledgements tell it."""
        return self.info().rtt

    @property
    def rtt_least(self) -> float | None:
        """The shortest round trip of the path."""
        return self.info().rtt_least

    @property
    def counts(self) -> PathCounts:
        """See `base.Connection`."""
        known = self.info()
        return PathCounts(known.packets, known.lost, known.delivered)

    @property
    def streams(self) -> int:
        """See `base.Connection`."""
        return len(self._streams.states)

    @property
    def closing(self) -> bool:
        """See `base.Connection`."""
        return self.closed.is_set() or self._closing_reason is not None

    # --- for the endpoint -----------------------------------------------------------------------------------

    def happened(self, event: quic.Event) -> None:
        """See `endpoint.Owner`."""
        if self.closed.is_set():
            return
        if event[0] == quic.LOST:
            self._end(close_reason(event[1], event[2]), OTHER, by_peer=True)
            return
        if event[0] in (quic.OPENED, quic.READABLE, quic.PONG):
            self.heard.set()
        elif event[0] == quic.MOVED and self._nursery is not None:
            rtt = self._info.rtt  # of the path before, as it was known last
            self._elsewhere = self._elsewhere or self.info().host != self._host
            if not self._following:
                self._following = True
                self._nursery.start_soon(self._follow, rtt)
        if event[0] == quic.OPENED:
            if self._openings.waits(event):
                return
        elif self._openings.late and self._openings.keeps(event):
            return
        self._tell(event)

    def _tell(self, event: quic.Event) -> None:
        try:
            self._streams.happened(event)
        except NETWORK_FAILURES as problem:
            self.abort(getattr(problem, "code", "CONNECTION_LOST"))

    def _open_late(self, events: list[quic.Event]) -> None:
        """Streams whose turn has come, and what became of them meanwhile. What they send leaves together."""

        def tell() -> None:
            for event in events:
                if not self.closed.is_set():
                    self._tell(event)
            self.account.settle(trio.current_time())

        self._line.later(tell)

    def _begin_opening(self) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._openings.run, self._turn)

    def settled(self) -> None:
        """See `endpoint.Owner`."""
        if self.closed.is_set():
            return
        self.bytes_received = self._line.bytes_received
        if self._mux.openers and self._streams.can_open:
            self._mux.may_open()
        self._openings.settled()
        self.account.settle(trio.current_time())

    def broken(self, reason: str) -> None:
        """See `endpoint.Owner`."""
        self.abort(reason)

    # --- for the rooms above --------------------------------------------------------------------------------

    async def run(
        self,
        on_stream: OnStream,
        supported: Supported,
        on_refused: OnRefused | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `base.Connection`."""
        self._mux.on_stream, self._mux.supported = on_stream, supported
        self._mux.on_refused = on_refused
        try:
            async with trio.open_nursery() as nursery:
                self._scope, self._nursery = nursery.cancel_scope, nursery
                if self.closed.is_set():
                    nursery.cancel_scope.cancel()
                task_status.started()
                if not self.closed.is_set():
                    self._take_over()
                while True:
                    with trio.CancelScope(deadline=self._mux.next_timer()) as self._mux.timer:
                        await trio.sleep_forever()
                    self._mux.on_timer(trio.current_time())
        finally:
            self._nursery = None
            self.abort("CANCELLED")

    async def _follow(self, rtt: float) -> None:
        """Takes the peer's new address for its own, once the engine has held on to it for longer than it takes to find
        out that nobody receives there: three times its probe timeout (RFC 9000 section 8.2.4). Until then the address
        may be anybody's, written on a datagram. A peer that goes on to another IP without end is closed."""
        now, until = self.info(), trio.current_time() + self._moved_most
        while True:
            seen, held = now, False
            with trio.move_on_at(until):
                await trio.sleep(max(self._moved_after, _HELD_TRIPS * max(rtt, seen.rtt)))
                held = True
            now = self.info()
            if held and now.moves == seen.moves:
                break
            if not held and self._elsewhere:
                self.abort("MOVES")
                return
            if not held:
                until += self._moved_most
        self._following = self._elsewhere = False
        before, self.remote = self.remote, addr_of(Endpoint(_kind(now.host), now.host, now.port, "udp"))
        if self.remote != before:
            self._host = now.host
            self._moved(self, before)

    def _take_over(self) -> None:
        """What has come since the handshake, in order, and from now on all that comes."""
        waiting, self._line.owner = self._line.owner, self
        for event in getattr(waiting, "kept", ()):
            self.happened(event)
        self.settled()
        if self._line.gone:  # with its socket, in the meantime
            self.abort("CONNECTION_LOST")
        if not self.closed.is_set():
            self._streams.ping()

    async def open_stream(self, protocols: Sequence[str], *, lazy: bool = False) -> Stream:
        """See `base.Connection`."""
        return await self._mux.open(protocols, lazy=lazy)

    async def ping(self) -> float:
        """See `base.Connection`. The peer may take 25 ms to answer one that stands alone; the round trip is without."""
        self.check_alive()
        rtt = await self._mux.ping()
        if rtt is None:
            raise self._gone()
        return rtt

    def prove(self) -> None:
        """See `base.Connection`. A QUIC connection leaves nothing in the kernel."""

    def check_alive(self) -> None:
        """See `base.Connection`."""
        if self.closed.is_set():
            raise self._gone()
        if self._closing_reason is not None:
            raise ConnectionLost(f"the connection to {peer_text(self.peer)} is closing")

    async def aclose(self, reason: str = "NORMAL") -> None:
        """Takes no more streams; what was written to those whose half was ended arrives, within `close_timeout`; then
        CONNECTION_CLOSE. Streams still open end with ConnectionLost. Cancelling closes at once, for every task that is
        closing it."""
        if self.closed.is_set():
            await trio.lowlevel.checkpoint()
            return
        first = self._closing_reason is None
        self._closing_reason = self._closing_reason or reason
        try:
            if not first:
                await self.closed.wait()
                return
            self._streams.over = True
            self._mux.may_open()  # they learn that there is nothing to wait for
            with trio.move_on_after(self._close_timeout):
                await self._streams.drain()
        finally:
            self._end(reason, GATED if reason == NOT_ALLOWED else GOODBYE)

    async def turn_away(self) -> None:
        """See `base.Connection`."""
        self._end(NOT_ALLOWED, GATED)
        await trio.lowlevel.checkpoint()

    def abort(self, reason: str) -> None:
        """See `base.Connection`."""
        self._end(reason, OTHER)

    def _end(self, reason: str, code: int, *, by_peer: bool = False) -> None:
        if self.closed.is_set():
            return
        self.close_reason = self._closing_reason or reason
        self._shut_out = by_peer and reason == NOT_ALLOWED
        self.bytes_received = self._line.bytes_received
        self.info()
        self.closed.set()
        self.identified.set()
        self._streams.end(by_peer=by_peer)
        self._mux.fail(self._gone())
        self.account.close()
        self._line.close(code, b"")
        if self._scope is not None:
            self._scope.cancel()

    def _gone(self) -> BrokenConnection:
        if self._shut_out:
            return ShutOut(f"{peer_text(self.peer)} does not let this peer in, and closed the connection")
        return BrokenConnection(f"the connection to {peer_text(self.peer)} is gone ({self.close_reason})")

    def _shed(self, since: float) -> None:
        """Gives up the stream with most unread bytes that has not moved since then, or itself when it has none."""
        if not self._mux.shed(since) and trio.current_time() <= since:
            self.abort("MEMORY")


def _host(addr: Multiaddr) -> str:
    endpoint = endpoint_of(addr)
    assert endpoint is not None  # of an IP, as every address of a connection over UDP
    return endpoint.host


def _kind(host: str) -> Literal["ip4", "ip6"]:
    return "ip6" if ":" in host else "ip4"
