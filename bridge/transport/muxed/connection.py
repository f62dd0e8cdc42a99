"""One secured, muxed connection: read, decrypt, feed the mux, and close in good order.

Knows no table of peers, no dialling, and no meaning of a protocol; the streams are the mux's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from punchbridge.config import MuxedLimits, YamuxLimits
from punchbridge.errors import ConnectionLost, LimitExceeded, NotAllowed, RemoteError
from punchbridge.events import Path, Role
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.gauge import PathCounts
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.memory import Account, Memory
from punchbridge.transport.base import NOT_ALLOWED, OnRefused, OnStream, Supported, TransportName
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.sender import Sender
from punchbridge.transport.muxed.streams import YamuxStreams
from punchbridge.transport.numbers import next_id
from punchbridge.transport.raw import BrokenConnection, BrokenStream, ShutOut
from punchbridge.transport.streams.mux import Mux
from punchbridge.transport.streams.stream import Stream
from punchbridge.wire.identify import IdentifyInfo
from punchbridge.wire.noise import Opener, Sealer
from punchbridge.yamux import GoAwayCode

SILENT_REASONS = frozenset({"SILENT", "KEEPALIVE_TIMEOUT"})
"""Close reasons that say: nobody is there. The kernel is not to go on trying."""

_UNREAD: Final = 8
"""Reads of what comes from somebody who was turned away, for the goodbye to be read there."""


class MuxedConnection:
    """A connection to one authenticated peer. Made by `upgrade`; works while `run` runs.

    `bytes_received` counts what came from the stream below, `opened_at` is trio's clock. `heard` is set once a frame of
    the peer came: as the responder, that is its answer to a handshake message of ours. `rtt` is the handshake's.
    `account`: the memory that it may hold, one of its own when None; closed with it. `turn` is awaited before it goes
    on after much work; by default all other tasks run once.
    """

    follows = False

    def __init__(
        self,
        link: Link,
        *,
        peer: PeerId,
        role: Role,
        sealer: Sealer,
        opener: Opener,
        limits: MuxedLimits,
        yamux: YamuxLimits,
        account: Account | None = None,
        turn: Callable[[], Awaitable[None]] | None = None,
        early: bytes = b"",
        rtt: float | None = None,
    ) -> None:
        self.id = next_id()
        self.peer = peer
        self.role = role
        self.path: Path = link.path
        self.transport: TransportName = link.transport
        self.local, self.remote, self.inbound = link.local, link.remote, link.inbound
        self.relay, self.limit, self.attested, self.punched = link.relay, link.limit, link.attested, link.punched
        self.opened_at = trio.current_time()
        self.identify: IdentifyInfo | None = None
        self.identified = trio.Event()
        self.heard = trio.Event()
        self.closed = trio.Event()
        self.close_reason = ""
        self.bytes_received = 0
        self._raw = link.raw
        self._opener, self._early = opener, early
        self._sender = Sender(self._raw, sealer, limits, lost=self._lost, room=self._room)
        self.account = Memory().account("") if account is None else account
        self._streams = YamuxStreams(self._sender, limits, yamux, self.account, client=role == "initiator")
        self._mux = Mux(self, self._streams, limits)
        self.account.peer = peer
        self.account.watch(self._streams.held, self._shed)
        self._read, self._close_timeout = limits.read, limits.close_timeout
        self._handshake_rtt = rtt
        self._closing_reason: str | None = None
        self._taking = self._shut_out = False
        self._turn = trio.lowlevel.checkpoint if turn is None else turn
        self._waits = trio.Event()
        """Set while a circuit's bytes wait for the next turn."""
        self._scope: trio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<MuxedConnection {self.id} {self.role} {self.path} {peer_text(self.peer)} {self.remote}>"

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the stream below."""
        return self._sender.bytes_sent

    @property
    def rtt(self) -> float | None:
        """The round trip measured last in seconds, by a Yamux ping; until one is answered, the handshake's."""
        measured = self._streams.session.rtt
        return self._handshake_rtt if measured is None else measured

    @property
    def rtt_least(self) -> float | None:
        """The shortest round trip that was measured; None before the first Yamux ping was answered."""
        return self._streams.session.liveness.floor

    @property
    def counts(self) -> PathCounts | None:
        """See `base.Connection`."""
        read = self._raw.counts
        return None if read is None or self.closed.is_set() else read()

    @property
    def streams(self) -> int:
        """Streams that have not ended on both sides."""
        return len(self._streams.session.streams)

    @property
    def closing(self) -> bool:
        """It takes no more streams: closed, or one of the two sides has said goodbye."""
        session = self._streams.session
        return self.closed.is_set() or session.local_gone or session.remote_gone

    async def run(
        self,
        on_stream: OnStream,
        supported: Supported,
        on_refused: OnRefused | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves the connection until it is closed; never raises for the peer's faults (see `close_reason`).

        `on_stream` is called for each inbound stream once its protocol, one of `supported()`, is agreed, and
        `on_refused` for each proposal that is none of them. Cancelling aborts the connection.
        """
        self._mux.on_stream, self._mux.supported = on_stream, supported
        self._mux.on_refused = on_refused
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self.closed.is_set():
                    nursery.cancel_scope.cancel()
                nursery.start_soon(self._sender.run)
                nursery.start_soon(self._timer_loop)
                task_status.started()
                self._streams.ping()
                await self._read_loop()
                nursery.cancel_scope.cancel()
        finally:
            self.abort("CANCELLED")

    async def open_stream(self, protocols: Sequence[str], *, lazy: bool = False) -> Stream:
        """Opens a stream and agrees on the first of `protocols` that the peer supports, in one round trip.

        With `lazy`, and one protocol only, returns at once: data may follow the proposal without waiting, and a refusal
        surfaces as NegotiationFailed on the next read or write. Waits while too many own streams await their ACK.
        Raises NegotiationFailed (none supported, or no answer in `negotiate_timeout`), ConnectionLost, StreamReset.
        Cancelling resets the stream.
        """
        return await self._mux.open(protocols, lazy=lazy)

    async def ping(self) -> float:
        """One Yamux ping; the round trip in seconds. Raises ConnectionLost, LimitExceeded. No deadline of its own."""
        self.check_alive()
        rtt = await self._mux.ping()
        if rtt is None:
            raise self._gone()
        return rtt

    async def aclose(self, reason: str = "NORMAL") -> None:
        """GoAway(0), what is queued leaves, the peer closes, then the stream below is closed, within `close_timeout`.

        Streams still open end with ConnectionLost. Cancelling closes at once, for every task that is closing it.
        """
        if self.closed.is_set():
            await trio.lowlevel.checkpoint()
            return
        first = self._closing_reason is None
        self._closing_reason = self._closing_reason or reason
        try:
            if not first:
                await self.closed.wait()  # another task is at it, and ends within `close_timeout`
                return
            self._streams.go_away(GoAwayCode.GATED if reason == NOT_ALLOWED else GoAwayCode.NORMAL)
            with trio.move_on_after(self._close_timeout):
                if self._scope is not None:
                    await self._sender.flush()
                    if self.closed.is_set():
                        return  # cut meanwhile; the writer task may still hold the socket
                    if self._raw.reads_to_end:
                        # A socket that is closed with bytes unread resets the connection, and what the kernel has not
                        # sent yet is lost (RFC 1122 4.2.2.13): the read loop goes on until the peer has closed.
                        self._sender.stop()
                        await self._raw.send_eof()
                        await self.closed.wait()
                # Not `abort`: over a circuit that would reset the stream below, and lose what the peer has not read.
                await self._raw.aclose()
        except NETWORK_FAILURES:
            pass
        finally:
            self.abort(reason)

    async def turn_away(self) -> None:
        """See `base.Connection`."""
        self._streams.go_away(GoAwayCode.GATED)
        try:
            with trio.move_on_after(self._close_timeout):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._sender.run)
                    await self._sender.flush()
                    if self._raw.reads_to_end and not self.closed.is_set():
                        await self._raw.send_eof()
                        for _ in range(_UNREAD):  # see `aclose`
                            if not await self._raw.receive_some(self._read):
                                break
                    elif not self.closed.is_set():
                        await self._raw.aclose()
                    nursery.cancel_scope.cancel()
        except NETWORK_FAILURES:
            pass
        finally:
            self.abort(NOT_ALLOWED)

    def abort(self, reason: str) -> None:
        """Closes at once and ends every stream with ConnectionLost. The first reason stays."""
        if self.closed.is_set():
            return
        self.close_reason = self._closing_reason or reason
        self.closed.set()
        self.identified.set()
        self._mux.fail(self._gone())
        self._sender.stop()
        self._streams.end()
        self.account.close()
        if self.close_reason in SILENT_REASONS:
            self._raw.discard()
        else:
            self._raw.abort()
        if self._scope is not None:
            self._scope.cancel()

    def prove(self) -> None:
        """See `base.Connection`."""
        self._raw.prove()

    def check_alive(self) -> None:
        """Raises ConnectionLost when the connection takes no more streams."""
        if self.closed.is_set():
            raise self._gone()
        if self._streams.session.remote_gone:
            raise ConnectionLost(f"{peer_text(self.peer)} is closing the connection")

    def _gone(self) -> BrokenConnection:
        if self._shut_out:
            return ShutOut(f"{peer_text(self.peer)} does not let this peer in, and closed the connection")
        return BrokenConnection(f"the connection to {peer_text(self.peer)} is gone ({self.close_reason})")

    def _shed(self, since: float) -> None:
        """Gives up the largest thing that it holds and that has not moved since then: a stream, or itself."""
        if self._streams.held() * 2 >= self.account.held:  # unsent bytes and open streams, rather than unread bytes
            if self._sender.moved <= since:
                self.abort("MEMORY")
        elif not self._mux.shed(since) and trio.current_time() <= since:
            self.abort("MEMORY")  # what its streams have left behind

    def _room(self) -> None:
        if self._mux.blocked:
            self._mux.wake_writers()

    def _lost(self, problem: BaseException) -> None:
        if isinstance(problem, LimitExceeded):
            self.abort("PEER_NOT_READING")
        elif isinstance(problem, NotAllowed):
            self._shut_out = True
            self.abort(NOT_ALLOWED)
        elif isinstance(problem, RemoteError) and not isinstance(problem, BrokenStream | BrokenConnection):
            self.abort(problem.code)
        elif isinstance(problem, BrokenStream) and self._streams.session.remote_gone:
            # It said goodbye and closed; the reset answers what of ours it had not read any more.
            self.abort("CLOSED_BY_PEER")
        else:
            self.abort("CONNECTION_LOST")

    async def _read_loop(self) -> None:
        try:
            self._streams.feed((self._early,) if self._early else (), trio.current_time())
            self._take(b"")  # what arrived with the handshake
            await self._rest()
            if self._raw.notify(self._arrived):
                # A circuit: the relay's connection reads, and what it brings is taken there, without a task switch.
                self._arrived()
                while not self.closed.is_set():
                    await self._waits.wait()
                    await self._rest()
                    self._waits = trio.Event()
                    self._arrived()
            while not self.closed.is_set():
                self._take(await self._raw.receive_some(self._read) or None)
                await self._rest()
        except NETWORK_FAILURES as problem:
            self._read_failed(problem)
        finally:
            self._raw.notify(None)

    async def _rest(self) -> None:
        """Handles what the last read has brought beyond one turn. Returns when it is this connection's turn to read."""
        while self._streams.busy and not self.closed.is_set():
            await self._turn()
            self._streams.feed((), trio.current_time())

    def _arrived(self) -> None:
        # What is taken may be answered, and a failure of that calls us again: the loop below meets it.
        if self._taking or self._waits.is_set():
            return
        self._taking = True
        try:
            while not self.closed.is_set() and (data := self._raw.receive_nowait(self._read)) is not None:
                self._take(data or None)
                if self._streams.busy:
                    self._waits.set()
                    break
        except NETWORK_FAILURES as problem:
            self._read_failed(problem)
        finally:
            self._taking = False

    def _take(self, data: bytes | None) -> None:
        """Bytes of the stream below; None is its end. Raises what ends the connection (NETWORK_FAILURES)."""
        if data is None:
            clean = self._streams.session.remote_gone or not self.streams
            self.abort("CLOSED_BY_PEER" if clean else "CONNECTION_LOST")
            return
        self.bytes_received += len(data)
        plaintexts = self._opener.receive(data)
        self._streams.feed(plaintexts, trio.current_time())
        if plaintexts or self._early:
            self.heard.set()

    def _read_failed(self, problem: BaseException) -> None:
        self._streams.flush()
        self._lost(problem)

    async def _timer_loop(self) -> None:
        """One timer for keepalive, lingering streams and unfinished negotiations."""
        while True:
            with trio.CancelScope(deadline=self._mux.next_timer()) as self._mux.timer:
                await trio.sleep_forever()
            self._mux.on_timer(trio.current_time())
