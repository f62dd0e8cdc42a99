"""What the node has, has asked for, and must tell its peers: transactions and blocks with their announcements.

Bodies are opaque: no consensus is checked beyond the id. An item is requested from one peer at a time, kept in a
bounded store, and announced to every peer but the one it came from and those known to have it. Sends only through
the connections in the hub; reads nothing from the network itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed, ids, wire
from .config import NodeLimits
from .connection import PeerConnection
from .errors import ConnectionOver
from .hub import Hub
from .peer import BoundedSet, PeerRecord
from .router import Outcome

Body = TypeVar("Body", bound=Message)


class BodyStore(Generic[Body]):
    """Bodies by id, bounded in number and bytes; the oldest goes first."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._items: dict[bytes, tuple[Body, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: bytes) -> bool:
        return item in self._items

    def get(self, item: bytes) -> Body | None:
        """The body, or None."""
        entry = self._items.get(item)
        return None if entry is None else entry[0]

    def put(self, item: bytes, body: Body) -> None:
        """Keep a body; older ones make room. One larger than the whole store is not kept."""
        size = body.ByteSize()
        if item in self._items or size > self._size:
            return
        self._items[item] = (body, size)
        self._bytes += size
        while len(self._items) > self._count or self._bytes > self._size:
            oldest = next(iter(self._items))
            self._bytes -= self._items.pop(oldest)[1]

    def newest(self) -> bytes | None:
        """The id put last, or None."""
        return next(reversed(self._items), None)


class Inventory:
    """The node's items. One per node; every flow of every peer works on it, in one event loop."""

    def __init__(self, hub: Hub, limits: NodeLimits, *, interval: float, clock: Callable[[], float]) -> None:
        self._limits = limits
        self.transactions: BodyStore[pb.TransactionMessage] = BodyStore(limits.stored_transactions, limits.stored)
        self.blocks: BodyStore[pb.BlockMessage] = BodyStore(limits.stored_blocks, limits.stored)
        self._hub = hub
        self._interval = interval
        self._clock = clock
        # Longer than the stores: an item whose body is gone is not fetched again when it comes round.
        self._seen = BoundedSet(limits.stored_transactions + limits.stored_blocks + fixed.MAX_INV_PER_MESSAGE)
        self._requested: dict[bytes, PeerConnection] = {}
        self._to_announce: dict[bytes, None] = {}
        # (clock value, is a block, id) of what came in lately: a peer may be in its handshake while it is announced.
        self._recent: deque[tuple[float, bool, bytes]] = deque(maxlen=limits.reannounce_ids)
        self._wake = asyncio.Event()

    # --- taking in ---

    def want(self, items: Iterable[bytes], connection: PeerConnection) -> list[bytes]:
        """Those of `items` to request on this connection: not had, not asked for elsewhere. They count as asked.

        Beyond the bound the oldest request is forgotten, and its item may be asked for twice: peers that announce much
        and answer nothing must not keep us from asking others.
        """
        wanted = []
        for item in items:
            if item in self._seen or item in self._requested:
                continue
            self._requested[item] = connection
            wanted.append(item)
            if len(self._requested) > self._limits.requested_ids:
                del self._requested[next(iter(self._requested))]
        return wanted

    def answered(self, item: bytes) -> None:
        """The request for `item` was answered, with a body or without."""
        self._requested.pop(item, None)

    def add_transaction(self, item: bytes, tx: pb.TransactionMessage, source: PeerRecord | None = None) -> None:
        """Keep a transaction and announce it within the broadcast interval. A known one is ignored."""
        if item in self._seen:
            return
        self._seen.add(item)
        self._recent.append((self._clock(), False, item))
        self.transactions.put(item, tx)
        if source is not None:
            source.known_transactions.add(item)
        self._to_announce[item] = None
        if len(self._to_announce) > fixed.MAX_INV_PER_MESSAGE:
            del self._to_announce[next(iter(self._to_announce))]
        self._wake.set()

    def add_block(self, item: bytes, block: pb.BlockMessage, source: PeerRecord | None = None) -> None:
        """Keep a block and announce it at once. A known one is ignored."""
        if item in self._seen:
            return
        self._seen.add(item)
        self._recent.append((self._clock(), True, item))
        self.blocks.put(item, block)
        if source is not None:
            source.known_blocks.add(item)
        self._hub.each(lambda record, connection: self._announce_block(record, connection, item), but=source)

    def publish_transaction(self, tx: pb.TransactionMessage) -> bytes:
        """Announce a transaction of our own; returns its id. Raises ValueError for a version without a known id."""
        item = ids.transaction_id(tx)
        if item is None:
            raise ValueError(f"the id of a transaction of version {tx.version} is not known")
        self.add_transaction(item, tx)
        return item

    def publish_block(self, block: pb.BlockMessage) -> bytes:
        """Announce a block of our own; returns its hash."""
        item = ids.block_hash(block)
        self.add_block(item, block)
        return item

    # --- announcing ---

    async def run(self) -> None:
        """Announce transactions in batches, at least the interval apart. Runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._to_announce)
            self._to_announce.clear()
            for record in self._hub.active():
                if record.connection is not None:
                    unknown = [item for item in batch if item not in record.known_transactions]
                    self._announce_transactions(record, record.connection, unknown)
            await asyncio.sleep(self._interval)

    def greet(self, record: PeerRecord, connection: PeerConnection) -> None:
        """Announce to a peer just connected: our newest block, what came in while it shook hands, and, on a re-opened
        stream, what it was told lately: some of that may have been lost with the old one."""
        now = self._clock()
        known = {item for _, _, item in record.announced}
        told = younger_than(self._limits.reannounce_age, now, record.announced)
        fresh = younger_than(self._limits.reannounce_age, now, self._recent)
        record.announced.clear()
        for item in told[1]:
            record.known_blocks.discard(item)
        unknown = [item for item in fresh[0] if item not in known and item not in record.known_transactions]
        self._announce_transactions(record, connection, told[0] + unknown)
        newest = self.blocks.newest()
        for item in dict.fromkeys([*told[1], *fresh[1], *([] if newest is None else [newest])]):
            self._announce_block(record, connection, item)

    def _announce_transactions(self, record: PeerRecord, connection: PeerConnection, items: list[bytes]) -> None:
        if not record.relay_transactions:
            return
        try:
            for batch in wire.batches(items):
                connection.send_now(wire.inv_transactions(batch))
                record.known_transactions.update(batch)
                now = self._clock()
                record.announced.extend((now, False, item) for item in batch)
        except ConnectionOver:
            return  # its own run reports it

    def _announce_block(self, record: PeerRecord, connection: PeerConnection, item: bytes) -> None:
        if item in record.known_blocks:
            return
        try:
            connection.send_now(wire.inv_block(item))
        except ConnectionOver:
            return  # its own run reports it
        record.known_blocks.add(item)
        record.announced.append((self._clock(), True, item))

    # --- losing a connection ---

    def release(self, connection: PeerConnection, owner: PeerRecord) -> None:
        """A connection of `owner` ended: offer what it still owed to a peer that has it, its successor first."""
        orphans = [item for item, asked in self._requested.items() if asked is connection]
        for item in orphans:
            del self._requested[item]
        for record in [owner, *(other for other in self._hub.active() if other is not owner)]:
            if record.connection is None or not orphans:
                continue
            transactions = [item for item in orphans if item in record.known_transactions]
            blocks = [item for item in orphans if item in record.known_blocks]
            # What the peer's queue did not take is offered to the next one.
            route, taken = record.connection.table.route, set[bytes]()
            for batch in wire.batches(transactions):
                if route(wire.inv_transactions(batch)) is Outcome.DELIVERED:
                    taken.update(batch)
            taken.update(item for item in blocks if route(wire.inv_block(item)) is Outcome.DELIVERED)
            orphans = [item for item in orphans if item not in taken]


def younger_than(
    age: float, now: float, entries: Iterable[tuple[float, bool, bytes]]
) -> tuple[list[bytes], list[bytes]]:
    """Transaction ids and block hashes entered at most `age` seconds before `now`, oldest first."""
    transactions: list[bytes] = []
    blocks: list[bytes] = []
    for when, is_block, item in entries:
        if now - when <= age:
            (blocks if is_block else transactions).append(item)
    return transactions, blocks
