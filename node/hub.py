"""The table of peers: who is connected, whether another stream of theirs is a duplicate or a successor.

Pure decisions and a bounded table; it starts no task and sends nothing. Over plain TCP nobody vouches for a peer, so
a second stream is a duplicate, as kaspad has it. Over the bridge the peer id is proven, so a second stream of the
same peer is the same peer on another path, and takes over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from . import wire
from .config import NodeLimits
from .connection import PeerConnection
from .errors import HandshakeFailure
from .handshake import HandshakeRefusal
from .peer import PeerRecord
from .transport import PeerInfo


class Verdict(enum.Enum):
    """What a further stream of a peer is."""

    FREE = "free"
    SUCCESSOR = "successor"
    DUPLICATE = "duplicate"


def judge(
    existing: PeerConnection | None, *, same_process: bool, proven: bool, outbound: bool, ours_wins: bool
) -> Verdict:
    """Decide over a further stream of a peer.

    existing: its present connection. same_process: it sent the same node id. proven: its peer id is authenticated.
    outbound: we dialled this stream. ours_wins: of two streams dialled by either side at once, ours is kept; both
    sides compute the opposite value, so that both keep the same stream.
    """
    if existing is None:
        return Verdict.FREE
    if not proven:
        return Verdict.DUPLICATE
    if not same_process or existing.outbound == outbound or existing.ending is not None:
        return Verdict.SUCCESSOR  # a restarted peer, a re-opened stream, or a stream that is over already
    return Verdict.SUCCESSOR if outbound == ours_wins else Verdict.DUPLICATE


class Hub:
    """Peers by key. At most `limits.peers` connected, and `limits.dormant_peers` remembered without a connection."""

    def __init__(self, own_id: bytes, limits: NodeLimits) -> None:
        self._own_id = own_id
        self._limits = limits
        self._records: dict[str, PeerRecord] = {}

    def __iter__(self) -> Iterator[PeerRecord]:
        return iter(list(self._records.values()))

    def get(self, key: str) -> PeerRecord | None:
        """The record of that key, connected or not."""
        return self._records.get(key)

    def active(self) -> list[PeerRecord]:
        """The records with a connection."""
        return [record for record in self._records.values() if record.connection is not None]

    def verdict(self, info: PeerInfo, node_id: bytes, outbound: bool) -> Verdict:
        """What a stream from this peer would be now."""
        record = self._records.get(info.key_with(node_id))
        return judge(
            record.connection if record is not None else None,
            same_process=record is not None and record.node_id == node_id,
            proven=info.peer_id is not None,
            outbound=outbound,
            ours_wins=self._own_id < node_id,
        )

    def admit(self, info: PeerInfo, node_id: bytes, connection: PeerConnection) -> PeerRecord | HandshakeRefusal:
        """Enter a stream whose handshake is done; its predecessor, if any, is retired. Judged anew: time has passed."""
        verdict = self.verdict(info, node_id, connection.outbound)
        if verdict is Verdict.DUPLICATE:
            return HandshakeRefusal(HandshakeFailure.DUPLICATE, wire.REASON_DUPLICATE)
        if verdict is Verdict.FREE and len(self.active()) >= self._limits.peers:
            return HandshakeRefusal(HandshakeFailure.TOO_MANY_PEERS, f"too many peers, at most {self._limits.peers}")
        if verdict is Verdict.FREE and self._crowded(info):
            return HandshakeRefusal(HandshakeFailure.TOO_MANY_PEERS, "too many peers of one address")
        key = info.key_with(node_id)
        record = self._records.pop(key, None) or PeerRecord(key, info, node_id, self._limits)
        self._records[key] = record  # youngest last
        predecessor = record.connection
        record.info, record.node_id = info, node_id
        record.take_connection(connection)
        if predecessor is not None:
            predecessor.retire(connection)
        return record

    def _crowded(self, info: PeerInfo) -> bool:
        """Node ids and peer ids cost nothing: one address gets three quarters of the places at most."""
        origin = info.origin
        most = self._limits.peers - self._limits.peers // 4
        return origin is not None and sum(record.info.origin == origin for record in self.active()) >= most

    def leave(self, record: PeerRecord, connection: PeerConnection) -> None:
        """A stream ended. The record stays, dormant, unless there are too many such."""
        if record.connection is connection:
            record.connection = None
        dormant = [item for item in self._records.values() if item.connection is None]
        for item in dormant[: max(0, len(dormant) - self._limits.dormant_peers)]:
            del self._records[item.key]

    def each(self, act: Callable[[PeerRecord, PeerConnection], None], *, but: PeerRecord | None = None) -> None:
        """Call `act` for every connected peer except `but`."""
        for record in self.active():
            if record is not but and record.connection is not None:
                act(record, record.connection)
