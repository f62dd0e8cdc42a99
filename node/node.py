"""The node: one identity, its peers, its inventory, over any number of gRPC servers and channels.

`async with Node(config) as node` runs it; `add_to_server` takes calls, `connect` makes them. Servers and channels
belong to the caller: the same node serves plain TCP and the bridge at once. No trio and no libp2p here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from punchbridge.events import Event
from punchbridge.tasks.supervise import guarded

from . import gossip, transport
from .addressbook import AddressBook, NetworkAddress
from .config import NodeConfig
from .connection import PeerConnection
from .errors import DisconnectReason, Ending, HandshakeError, NodeClosed
from .events import FlowStats, HandshakeCompleted, HandshakeRefused, PeerDisconnected
from .hub import Hub
from .inventory import Inventory
from .link import PeerLink
from .peer import PeerRecord
from .session import PeerSession, Policy, Shared, accept_all, failure_of
from .storekeeper import StoreKeeper
from .transport import ClientStream, Identify, NotIdentified, PeerInfo, ServerStream

log = logging.getLogger(__name__)

Emit = Callable[[Event], None]


def _ignore(_event: Event) -> None:
    return None


class Node:
    """A Kaspa P2P node. All methods belong to the event loop that entered it."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        emit: Emit = _ignore,
        policy: Policy = accept_all,
        keeper: StoreKeeper | None = None,
    ) -> None:
        """emit: called with each event, must not block; what it raises is logged.

        keeper: writes peers to disk, None for memory only.
        """
        self.config = config
        self.hub = Hub(config.node_id, config.limits)
        clock = time.monotonic
        self.inventory = Inventory(self.hub, config.limits, interval=config.transaction_broadcast_interval, clock=clock)
        self.addresses = AddressBook(config.limits.address_book)
        self._emit = guarded("the callback for the node's events", emit)
        self._keeper = keeper
        self._shared = Shared(
            config, self.hub, self.inventory, self.addresses, policy, clock, self._learned, self._connected
        )
        self._group: asyncio.TaskGroup | None = None
        self._background: list[asyncio.Task[None]] = []
        self._sessions: set[PeerSession] = set()
        self._idle = asyncio.Event()
        self._handshakes = 0
        self._closed = False

    # --- life ---

    async def __aenter__(self) -> Node:
        known = [] if self._keeper is None else await self._keeper.load(self._emit)
        self.addresses.add(known)
        self._group = await asyncio.TaskGroup().__aenter__()
        works = [
            self.inventory.run(),
            self._report(),
            gossip.make_transactions(self.config.gossip, self.inventory),
            gossip.make_blocks(self.config.gossip, self.inventory),
        ]
        if self._keeper is not None:
            works.append(self._keeper.run())
        self._background = [self._group.create_task(work) for work in works]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        try:
            await self.close()
        finally:
            for task in self._background:
                task.cancel()
            await self._group.__aexit__(kind, error, trace)

    async def close(self) -> None:
        """End every connection, tell the last counters, write what the store has to take. Bounded in time.

        No stream is taken afterwards. Calling it again does nothing.
        """
        self._closed = True
        limits = self.config.limits
        for session in list(self._sessions):
            session.connection.end(Ending(DisconnectReason.LOCAL_CLOSE, "the node stops"))
        try:
            async with asyncio.timeout(limits.flush_timeout + limits.close_timeout + 1):
                while self._sessions:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            log.warning("%d connections did not end in time", len(self._sessions))
        if self._keeper is not None:
            try:
                async with asyncio.timeout(limits.store.flush_timeout):
                    await self._keeper.flush()
            except TimeoutError:
                log.warning("the peer store is stuck; what waited for it is lost")

    # --- both sides ---

    def add_to_server(self, server: Any, identify: Identify = transport.identify_tcp) -> None:
        """Register the MessageStream handler on a `grpc.aio.Server` not yet started.

        identify: who calls. Several servers may be given, each with its own (TCP, the bridge).
        """

        async def message_stream(_requests: Any, context: Any) -> None:
            await self._serve(context, identify)

        transport.add_handler(server, message_stream)

    async def connect(self, channel: Any, info: PeerInfo) -> PeerLink:
        """Shake hands over this channel. The channel stays the caller's to close, after the link.

        Raises HandshakeError, NodeClosed. Cancellation drops the stream and leaves the channel open.
        """
        link = PeerLink(self._dial)
        await link.open(channel, info)
        return link

    def stats(self, record: PeerRecord) -> FlowStats:
        """The counters of a peer over all its connections."""
        return FlowStats(
            peer=record.label, path=record.info.path, sent=dict(record.sent), received=dict(record.received)
        )

    # --- inside ---

    async def _dial(self, channel: Any, info: PeerInfo) -> PeerSession:
        """Open a stream and return its session once established; it runs on in the node's task group."""
        if self._group is None or self._closed:
            raise NodeClosed("the node is not running")
        await transport.channel_ready(channel, self.config.connect_timeout)
        if self._closed:
            raise NodeClosed("the node was closed while the channel connected")
        session = PeerSession(self._shared, PeerConnection(ClientStream(channel), self.config.limits), info)
        running = self._group.create_task(self._run(session))
        established = self._group.create_task(session.established.wait())
        try:
            await asyncio.wait({running, established}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            session.connection.end(Ending(DisconnectReason.LOCAL_CLOSE, "the dial was cancelled"))
            raise
        finally:
            established.cancel()
        ending = session.connection.ending
        if session.record is None:
            assert ending is not None
            raise HandshakeError(failure_of(ending), ending.detail)
        return session

    async def _serve(self, context: Any, identify: Identify) -> None:
        if self._closed or self._group is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the node is not running")
        if self._handshakes >= self.config.limits.handshakes:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many handshakes at once")
        try:
            info = identify(context)
        except NotIdentified as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        begun = sum(one.record is None and one.info.peer_key == info.peer_key for one in self._sessions)
        if begun >= self.config.limits.handshakes_per_peer:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many handshakes of one peer at once")
        await self._run(PeerSession(self._shared, PeerConnection(ServerStream(context), self.config.limits), info))

    async def _run(self, session: PeerSession) -> None:
        """A stream's whole life, with its entries in our tables."""
        connection = session.connection
        self._sessions.add(session)
        self._handshakes += 1
        try:
            await connection.run(session.run)
        finally:
            self._sessions.discard(session)
            self._idle.set()
            if session.record is None:
                self._handshakes -= 1
            self._forget(session)

    def _forget(self, session: PeerSession) -> None:
        connection, record, ending = session.connection, session.record, session.connection.ending
        assert ending is not None
        if record is None:
            failure = failure_of(ending)
            by_peer = ending.reason in (
                DisconnectReason.PEER_REJECTED,
                DisconnectReason.PEER_CLOSED,
                DisconnectReason.TRANSPORT,
            )
            self._emit(
                HandshakeRefused(
                    peer=session.info.peer_key,
                    path=session.info.path,
                    failure=failure.value,
                    reason=ending.detail,
                    by="peer" if by_peer else "us",
                )
            )
            return
        self.hub.leave(record, connection)
        self.inventory.release(connection, record)
        self._emit(self.stats(record))
        self._emit(
            PeerDisconnected(
                peer=record.label,
                path=session.info.path,
                reason=ending.reason.value,
                detail=ending.detail,
                remaining=record.connection is not None,
            )
        )

    def _connected(self, record: PeerRecord) -> None:
        self._handshakes -= 1
        record.stored_path = None
        self._store(record)
        self._emit(HandshakeCompleted(peer=record.label, path=record.info.path, user_agent=record.user_agent))

    def _learned(self, addresses: list[NetworkAddress]) -> None:
        if self._keeper is not None and addresses:
            self._keeper.learned(addresses)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self.config.stats_interval)
            for record in self.hub.active():
                self._emit(self.stats(record))
                self._store(record)

    def _store(self, record: PeerRecord) -> None:
        """Keep the peer's addresses when its path is another than last time."""
        path = record.info.path
        if self._keeper is not None and path != record.stored_path:
            record.stored_path = path
            self._keeper.seen(record)
