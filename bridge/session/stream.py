"""A session as its user sees it: a `RawStream` that does not break when the path below it changes."""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Literal

import trio

from punchbridge.addresses import with_peer
from punchbridge.errors import BridgeError, DirectRequired
from punchbridge.eventhub import Subscriber
from punchbridge.identity import PeerId, peer_text
from punchbridge.session.live import LiveSession
from punchbridge.sessions import SessionRefusal
from punchbridge.transport.raw import BrokenConnection, BrokenStream, Buffer, StruckOut
from punchbridge.transport.turn import Turn

__all__ = ["SessionStream"]


class SessionStream(trio.abc.HalfCloseableStream):
    """One session. Reads raise BrokenStream after a reset, StruckOut when the peer reset it since it does not admit us
    any more, BrokenConnection when no path came back in time.

    One task may read and one may write at a time. `path`, `multiaddr`, `observed` and `round_trip` are live.
    """

    moves = True
    """The path may change under it."""

    keeps = True

    def __init__(self, live: LiveSession) -> None:
        self.live = live
        self._machine = live.machine
        self._closed = False
        self._sending = Turn("another task is writing to this stream")
        self._receiving = Turn("another task is reading this stream")

    def __repr__(self) -> str:
        return f"<SessionStream {self._machine.id.hex()[:8]} {self.service} {peer_text(self.peer)}>"

    @property
    def peer(self) -> PeerId:
        return self.live.peer

    @property
    def service(self) -> str:
        """The protocol the session was opened for."""
        return self._machine.service

    @property
    def path(self) -> Literal["direct", "relay"]:
        """The path in use; while there is none, the last one."""
        return "relay" if self.live.last is None else self.live.last.path

    @property
    def multiaddr(self) -> str:
        """The peer's address on that path, ending in /p2p/ID."""
        last = self.live.last
        return "" if last is None else str(with_peer(last.remote, last.peer))

    @property
    def observed(self) -> str | None:
        """Our own address as the peer sees it on that path; None on a relayed one."""
        identified = None if self.live.last is None else self.live.last.identify
        if identified is None or identified.observed is None or self.path == "relay":
            return None
        return str(identified.observed)

    @property
    def round_trip(self) -> float | None:
        """Seconds, of the path in use; None before the first measurement."""
        return self._machine.round_trip or None

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Calls back in the trio thread with each SessionSwitched of this session; returns how to end that."""
        return self.live.changes.subscribe(callback)

    @property
    def failure(self) -> BridgeError | None:
        """Why the session ended, if not in good order; bytes that came before may still be there."""
        over = self._machine.over
        if over is None or over.code == "DONE":
            return None
        text = f"{over.code}: {over.text}" if over.text else over.code
        if over.code == "EXPIRED" and isinstance(self.live.problem, DirectRequired):
            return self.live.problem
        if over.code == "EXPIRED":
            return BrokenConnection(f"no path to {peer_text(self.peer)} came back in time ({text})")
        if over.code == "RESET" and over.text == SessionRefusal.NOT_ALLOWED.name:
            return StruckOut(f"{peer_text(self.peer)} does not let this peer in any more; ask its owner ({text})")
        return BrokenStream(f"the session with {peer_text(self.peer)} is over ({text})")

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the session was closed here")
        problem = self.failure
        if problem is not None:
            raise problem

    async def receive_some(self, max_bytes: int | None = 262144) -> bytes:
        """At most `max_bytes` as soon as some are there; b"" after the peer's end.

        Raises BrokenStream, BrokenConnection, trio.ClosedResourceError after a close here, trio.BusyResourceError while
        another task reads. Cancelling loses nothing.
        """
        most = 262144 if max_bytes is None else index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._receiving:
            while (pieces := self.receive_parts(most)) is None:
                await self.live.reading.park()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return b"".join(pieces)

    @property
    def on_readable(self) -> Callable[[], None] | None:
        """See InboxStream."""
        return self.live.on_readable

    @on_readable.setter
    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self.live.on_readable = callback

    @property
    def room(self) -> int:
        """See InboxStream."""
        return self._machine.outgoing.room

    def receive_parts(self, max_bytes: int) -> list[Buffer] | None:
        """See InboxStream; raises as `receive_some`."""
        machine = self._machine
        if self._closed or not machine.incoming.readable:
            self._check()
            return None
        live = self.live
        pieces = machine.read(max_bytes, live.now)
        if machine.incoming.ack_due is not None and machine.incoming.ack_due <= live.now:
            live.flush(trio.current_time())
        return pieces

    def send_nowait(self, data: Buffer) -> int:
        """Takes what there is room for and returns how much that was; 0 would block. Raises as `send_all`."""
        machine = self._machine
        if self._closed or machine.over is not None or machine.outgoing.finished:
            self._check_writable()
        now = trio.current_time()
        taken = machine.write(data, now)
        if taken:
            self.live.flush(now)
        return taken

    def _check_writable(self) -> None:
        self._check()
        if self._machine.over is not None:
            raise BrokenStream(f"the session with {peer_text(self.peer)} is over")
        if self._machine.outgoing.finished:
            raise trio.ClosedResourceError("our half was ended")

    async def send_all(self, data: Buffer) -> None:
        """Sends everything. Raises BrokenStream, BrokenConnection, trio.ClosedResourceError, trio.BusyResourceError.

        Cancelling leaves an unknown part of it sent.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            view = memoryview(data)
            while view:
                taken = self.send_nowait(view)
                view = view[taken:]
                if view and not taken:
                    await self.live.writing.park()

    async def wait_send_all_might_not_block(self) -> None:
        """Until `send_nowait` would take something, or raise."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            outgoing = self._machine.outgoing
            while not outgoing.room and not outgoing.finished and self._machine.over is None and not self._closed:
                await self.live.writing.park()
            if self._closed:
                self._check()

    async def send_eof(self) -> None:
        """Ends our half; the peer reads b"" once it has everything. Cancelling leaves the half ended."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._machine.outgoing.finished and not self._closed:
                return
            self._check_writable()
            self._machine.finish()
            self.live.flush(trio.current_time())

    async def aclose(self) -> None:
        """Ends the stream; the peer reads all that was sent, then b"". Waits until it has it, `linger` at most.

        Cancelling resets what the peer does not have yet.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        machine = self._machine
        try:
            await trio.lowlevel.checkpoint()
            if machine.over is None:
                machine.finish()
                self.live.writing.unpark_all()  # another task's send ends now, and not with the session
                self.live.flush(trio.current_time())
                with trio.move_on_after(machine.limits.linger):
                    while machine.over is None and not machine.outgoing.fin_acked:
                        await self.live.closing.park()
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends the session at once; the peer sees a reset unless it has everything."""
        if self._closed:
            return
        self._closed = True
        if self._machine.over is None:
            self.live.handle(self._machine.reset("closed"))
        if self.live.on_readable is not None:
            self.live.on_readable()
        for parked in (self.live.reading, self.live.writing, self.live.closing):
            parked.unpark_all()
