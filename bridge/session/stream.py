"""A session as its user sees it: a `RawStream` that does not break when the path below it changes."""

from __future__ import annotations

from typing import Literal

import trio

from bridge.addresses import with_peer
from bridge.identity import PeerId, peer_text
from bridge.limits import SESSION_LINGER
from bridge.net.raw import BrokenConnection, BrokenStream, Buffer
from bridge.session.live import LiveSession

__all__ = ["SessionStream"]


class SessionStream(trio.abc.HalfCloseableStream):
    """One session. Reads raise BrokenStream after a reset, BrokenConnection when no path came back in time.

    One task may read and one may write at a time. `path`, `multiaddr`, `observed` and `round_trip` are live.
    """

    def __init__(self, live: LiveSession) -> None:
        self.live = live
        self._machine = live.machine
        self._closed = False

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

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the session was closed here")
        over = self._machine.over
        if over is None or over.code == "DONE":
            return
        text = f"{over.code}: {over.text}" if over.text else over.code
        if over.code == "EXPIRED":
            raise BrokenConnection(f"no path to {peer_text(self.peer)} came back in time ({text})")
        raise BrokenStream(f"the session with {peer_text(self.peer)} is over ({text})")

    async def receive_some(self, max_bytes: int | None = 262144) -> bytes:
        """At most `max_bytes` as soon as some are there; b"" after the peer's end. Cancelling loses nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        most = max_bytes or 262144
        machine = self._machine
        while True:
            now = trio.current_time()
            data = machine.read(most, now)
            if data:
                active = machine.active
                if active is not None and machine.wants_output(active, now):
                    self.live.flush()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
            if machine.incoming.ended and not self._closed:
                return b""
            self._check()
            await self.live.reading.park()

    def send_nowait(self, data: Buffer) -> int:
        """Takes what there is room for and returns how much that was; 0 would block. Raises as `receive_some`."""
        self._check()
        taken = self._machine.write(data, trio.current_time())
        if taken:
            self.live.flush()
        return taken

    async def send_all(self, data: Buffer) -> None:
        """Sends everything. Cancelling leaves an unknown part of it sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        view = memoryview(data)
        while view:
            taken = self.send_nowait(view)
            view = view[taken:]
            if view and not taken:
                await self.live.writing.park()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Until `send_nowait` would take something."""
        await trio.lowlevel.checkpoint()
        self._check()
        while not self._machine.outgoing.room:
            await self.live.writing.park()
            self._check()

    async def send_eof(self) -> None:
        """Ends our half; the peer reads b"" once it has everything. Cancelling leaves the half ended."""
        await trio.lowlevel.checkpoint()
        self._check()
        self._machine.finish()
        self.live.flush()

    async def aclose(self) -> None:
        """Ends our half if it is open and waits until the peer has everything; cancelling resets the session."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        try:
            if self._machine.over is None:
                self._machine.finish()
                self.live.flush()
                with trio.move_on_after(SESSION_LINGER):
                    await self.live.over.wait()
            await trio.lowlevel.checkpoint()
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends the session at once; the peer sees a reset unless everything had ended."""
        if self._closed:
            return
        self._closed = True
        if self._machine.over is None:
            self.live.handle(self._machine.reset("closed by the application"))
        self.live.reading.unpark_all()
        self.live.writing.unpark_all()
