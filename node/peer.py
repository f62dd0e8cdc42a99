"""What the node remembers of one peer, whatever stream carries it: counters, inventories, its present connection.

Data and bounded collections only. A record outlives its connection, so that counters continue and nothing known is
forgotten when the same peer comes back over another path.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field

from .config import NodeLimits
from .connection import PeerConnection
from .transport import PeerInfo


class BoundedSet:
    """A set of ids that forgets its oldest beyond `capacity`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: dict[bytes, None] = {}

    def __contains__(self, item: bytes) -> bool:
        return item in self._items

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: bytes) -> None:
        """Remember `item` as the youngest."""
        self._items.pop(item, None)
        self._items[item] = None
        if len(self._items) > self._capacity:
            del self._items[next(iter(self._items))]

    def discard(self, item: bytes) -> None:
        """Forget `item` if it is there."""
        self._items.pop(item, None)

    def update(self, items: Iterable[bytes]) -> None:
        """Remember all of them, in order."""
        for item in items:
            self.add(item)


@dataclass
class PeerRecord:
    """One peer by its key: the libp2p peer id over the bridge, node id and IP over TCP."""

    key: str
    info: PeerInfo
    node_id: bytes
    limits: InitVar[NodeLimits]
    user_agent: str = ""
    protocol_version: int = 0
    time_offset_ms: int = 0
    relay_transactions: bool = True  # False when its Version says so
    rtt: float | None = None  # seconds, of the last ping
    connections: int = 0  # handshakes completed, since the node started
    connection: PeerConnection | None = None
    stored_path: str | None = None  # the path when the peer store was last told
    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    known_transactions: BoundedSet = field(init=False)
    known_blocks: BoundedSet = field(init=False)
    # (clock value, is a block, id): what may not have arrived when a stream is replaced.
    announced: deque[tuple[float, bool, bytes]] = field(init=False)

    def __post_init__(self, limits: NodeLimits) -> None:
        self.known_transactions = BoundedSet(limits.known_transactions)
        self.known_blocks = BoundedSet(limits.known_blocks)
        self.announced = deque(maxlen=limits.reannounce_ids)

    @property
    def label(self) -> str:
        """How events and logs name the peer."""
        return self.info.peer_id or self.key

    def take_connection(self, connection: PeerConnection) -> None:
        """Make `connection` the present one and let it count on. What it counted in its handshake is added."""
        self.sent.update(connection.sent)
        self.received.update(connection.received)
        connection.sent, connection.received = self.sent, self.received
        self.connection = connection
        self.connections += 1
