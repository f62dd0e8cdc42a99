"""The peer store's writer: takes what the node learns, writes it in a worker thread, and never stops the node.

A bounded queue between the event loop and the disk; when the disk is slow the oldest entry goes. A failing store is
told once for each kind of failure, and tried again with the next entry.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from punchbridge.events import ErrorEvent, Event

from .addressbook import NetworkAddress
from .errors import PeerStoreError
from .peer import PeerRecord
from .peerstore import PeerStore, StoredPeer

Write = Callable[[], None]


class StoreKeeper:
    """Made over an open PeerStore, which stays the caller's to close."""

    def __init__(self, store: PeerStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._queue: deque[Write] = deque(maxlen=store.limits.queue)
        self._filled = asyncio.Event()
        self._emit: Callable[[Event], None] = lambda _event: None
        self._told: set[type[PeerStoreError]] = set()
        self._writing = asyncio.Lock()

    async def load(self, emit: Callable[[Event], None]) -> list[NetworkAddress]:
        """The addresses on disk; none when reading fails, which is told through `emit`, as rows are that are no
        addresses."""
        self._emit = emit
        try:
            found = await asyncio.to_thread(self._store.addresses, self._clock())
        except PeerStoreError as error:
            self._tell(error)
            return []
        if odd := self._store.passed_over:
            message = f"{odd} rows of the peer store {self._store.path} are no addresses of ours and are not used"
            emit(ErrorEvent(code="PEER_STORE_ENTRY", message=message))
        return found

    def seen(self, record: PeerRecord) -> None:
        """A handshake with this peer completed, or the path to it changed."""
        info, now = record.info.refreshed(), self._clock()
        multiaddr = info.multiaddr
        if multiaddr is None and info.address is not None and info.peer_id is None:
            multiaddr = tcp_multiaddr(info.address, info.port)
        peer = StoredPeer(
            key=record.key,
            peer_id=info.peer_id,
            user_agent=record.user_agent,
            protocol_version=record.protocol_version,
            last_seen=now,
            multiaddrs=(multiaddr,) if multiaddr and record.connection and record.connection.outbound else (),
            observed=(info.observed,) if info.observed else (),
        )
        self._put(lambda: self._store.record_peer(peer, now))

    def learned(self, addresses: list[NetworkAddress]) -> None:
        """Addresses of the network that were unknown."""
        now = self._clock()
        self._put(lambda: self._store.record_addresses(addresses, now))

    async def run(self) -> None:
        """Write until cancelled. Cancellation lets the write under way finish in its thread."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        async with self._writing:
            while self._queue:
                write = self._queue.popleft()
                try:
                    await asyncio.to_thread(write)
                except PeerStoreError as error:
                    self._tell(error)
                except ValueError as error:  # a text too long: one entry of a peer's making, not worth the store
                    self._emit(ErrorEvent(code="PEER_STORE_ENTRY", message=str(error)))
                else:
                    self._told.clear()

    def _put(self, write: Write) -> None:
        self._queue.append(write)
        self._filled.set()

    def _tell(self, error: PeerStoreError) -> None:
        if type(error) not in self._told:
            self._told.add(type(error))
            self._emit(ErrorEvent(code=error.code, message=f"{error}; the node goes on without it"))


def tcp_multiaddr(ip: str, port: int) -> str | None:
    """An IP address and port as multiaddr text, None for a host name."""
    try:
        version = NetworkAddress.parse(ip, port)
    except ValueError:
        return None
    return f"/ip{'6' if ':' in version.ip else '4'}/{version.ip}/tcp/{port}"
