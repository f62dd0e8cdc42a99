"""What the node is told at its start: network, versions, times, limits. Values only; nothing is read or opened.

Defaults follow the Kaspa wire; the shorter intervals of a demo are set by its caller. What the wire fixes for everybody
stands in `punchbridge_node.fixed`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace

from punchbridge.config.values import KIB, MIB, Bytes, Checked, Count, Seconds
from punchbridge.version import __version__

from . import fixed

# Accepted everywhere: kaspad 2.x wants at least 10, kaspad 1.x takes anything from 7.
PROTOCOL_VERSION = 10
USER_AGENT = f"/punchbridge:{__version__}/"

DEFAULT_PORTS = {
    "kaspa-mainnet": 16111,
    "kaspa-testnet-10": 16211,
    "kaspa-testnet-12": 16311,
    "kaspa-simnet": 16511,
    "kaspa-devnet": 16611,
}
OTHER_TESTNET_PORT = 16411


def default_port(network: str) -> int:
    """The TCP port of that network. Raises ValueError for a name that is no Kaspa network."""
    if network in DEFAULT_PORTS:
        return DEFAULT_PORTS[network]
    if network.startswith("kaspa-testnet-"):
        return OTHER_TESTNET_PORT
    raise ValueError(f"no Kaspa network: {network!r} (kaspa-mainnet, kaspa-testnet-N, kaspa-simnet, kaspa-devnet)")


@dataclass(frozen=True, kw_only=True)
class StoreLimits(Checked):
    """The peer store on disk."""

    peers: Count = 1024
    """Peers that are kept; the one not seen for longest goes first."""

    addresses_per_peer: Count = 16
    """Addresses that are kept of one peer."""

    network_addresses: Count = 5000
    """Addresses of other nodes that are kept."""

    text_bytes: Bytes = 512
    """Text fields come from the network: longer ones are refused, not cut."""

    expiry: Seconds = 7 * 24 * 3600.0
    """A peer not seen for a week has most likely moved."""

    busy_timeout: Seconds = 2.0
    """Another process of ours may hold the write lock this long (a checkpoint); then the write fails, typed."""

    flush_timeout: Seconds = 4.0
    """What still waits when the node stops gets so long, two waits for the lock: a stuck disk must not hold up the
    end."""

    queue: Count = 256
    """Entries that wait for the writer thread; a slow disk drops the oldest, it never stops the node."""


@dataclass(frozen=True, kw_only=True)
class NodeLimits(Checked):
    """What the node accepts, keeps and waits for."""

    peers: Count = 128
    """Peers at once, both directions; kaspad's default is 117 inbound and 8 outbound."""

    handshakes: Count = 64
    """Peers between the first byte and Ready. A handshake is short, so more at once is a flood."""

    handshakes_per_peer: Count = 8
    """Of one peer id, or of one IP address over plain TCP: whoever begins many and says nothing keeps nobody else
    out."""

    waiting: Bytes = 32 * MIB
    """A peer's messages that wait in all its routes: seven full inventories. The wire's capacities count messages only,
    and 4096 full inventories are 18 GB."""

    outgoing_high_water: Bytes = 64 * MIB
    """Waiting bytes at which answers wait for room, so that a slow reader of large blocks costs us this and no more."""

    outgoing_stall: Seconds = 120.0
    """A peer that takes no message for so long while answers wait is gone or hostile."""

    flush_timeout: Seconds = 2.0
    """What is queued (a Reject among it) gets this long to leave before the stream is cut."""

    close_timeout: Seconds = 2.0
    """The peer gets this long to end its direction after ours ended."""

    retire_timeout: Seconds = 3.0
    """A replaced stream serves answers under way for this long; what is left is asked for again on its successor."""

    answers_per_turn: Count = 64
    """Answers made before other peers get their turn: about 2 ms."""

    blocks_per_request: Count = 256
    """Blocks in one RequestRelayBlocks: kaspad asks for one at a time; more is allowed, a flood is not."""

    known_transactions: Count = 131_072
    """Ids a peer is known to have: one full inventory, about 10 MiB of Python objects at most."""

    known_blocks: Count = 8 * KIB
    """The same of blocks."""

    reannounce_ids: Count = 4096
    """Ids announced lately, announced once more on a re-opened stream: what may have been under way on the old one."""

    reannounce_age: Seconds = 60.0
    """What was announced longer ago than this is not announced once more."""

    stored_transactions: Count = 50_000
    """Bodies of transactions that are held for others to ask for; the oldest goes first."""

    stored_blocks: Count = 4096
    """The same of blocks."""

    stored: Bytes = 128 * MIB
    """The bodies of transactions together, and apart from them those of blocks."""

    requested_ids: Count = 2 * fixed.MAX_INV_PER_MESSAGE
    """Ids requested from some peer and not yet answered, over all peers."""

    dormant_peers: Count = 64
    """Records of peers that are gone: counters and inventories continue when they return."""

    address_book: Count = 5000
    """Addresses of other nodes kept in memory."""

    store: StoreLimits = StoreLimits()
    """The peer store on disk."""


@dataclass(frozen=True)
class HandshakeTimes:
    """Longest waits, in seconds, for the peer's Version and Verack (from the start) and Ready (from ours).

    kaspad gives up after these times, so waiting longer only holds a slot.
    """

    version: float = 4.0
    verack: float = 4.0
    ready: float = 8.0

    def scaled(self, factor: float) -> HandshakeTimes:
        """The same times for a path that is `factor` times slower."""
        return HandshakeTimes(self.version * factor, self.verack * factor, self.ready * factor)


@dataclass(frozen=True)
class GossipSource:
    """Synthetic traffic for demos between nodes of ours. Never towards kaspad: it disconnects for bodies like these."""

    transaction_interval: float | None = None
    block_interval: float | None = None
    body_bytes: int = 200

    def __post_init__(self) -> None:
        for name in ("transaction_interval", "block_interval"):
            value = getattr(self, name)
            if value is not None and not value >= 0.01:
                raise ValueError(f"{name} must be at least 0.01 s")
        if not 0 <= self.body_bytes <= 1 << 20:
            raise ValueError("body_bytes must be between 0 and 1 MiB")


@dataclass(frozen=True)
class NodeConfig:
    """Everything a Node needs to know. Times in seconds."""

    network: str = "kaspa-devnet"
    protocol_version: int = PROTOCOL_VERSION
    min_protocol_version: int = PROTOCOL_VERSION
    user_agent: str = USER_AGENT
    node_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)
    advertise: tuple[str, int] | None = None  # IP address and port that others may dial over TCP
    disable_relay_tx: bool = False
    user_agent_allow: tuple[str, ...] = ()  # one of these must occur in the peer's user agent; () allows all
    user_agent_deny: tuple[str, ...] = ()  # none of these may occur
    blocks_per_second: int = 10

    handshake: HandshakeTimes = HandshakeTimes()
    slow_path_multiplier: float = 2.0
    """A relayed path adds round trips: the earlier Rust bridge doubled the waits for Version and Verack."""

    connect_timeout: float = 10.0
    """Connecting a channel includes the relay dial and the stream below it."""

    ping_interval: float = 120.0
    """kaspad's own."""

    answer_timeout: float = 120.0
    """The longest wait for any answer: kaspad's own."""

    stats_interval: float = 5.0
    """Between two FlowStats events of a peer."""

    transaction_broadcast_interval: float = 0.5
    """The shortest spacing of two InvTransactions to a peer: kaspad's own."""

    gossip: GossipSource = GossipSource()
    limits: NodeLimits = NodeLimits()

    def __post_init__(self) -> None:
        if not self.network.startswith("kaspa-"):
            raise ValueError(f"network must begin with 'kaspa-': {self.network!r}")
        if len(self.node_id) != fixed.NODE_ID_BYTES:
            raise ValueError(f"node_id must be {fixed.NODE_ID_BYTES} bytes")
        if not 0 <= self.min_protocol_version <= self.protocol_version < 1 << 32:
            raise ValueError("0 <= min_protocol_version <= protocol_version < 2^32 does not hold")
        for name in ("ping_interval", "answer_timeout", "stats_interval", "connect_timeout", "slow_path_multiplier"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if self.blocks_per_second < 1:
            raise ValueError("blocks_per_second must be at least 1")

    def with_changes(self, **changes: object) -> NodeConfig:
        """A copy with these fields changed. Raises TypeError for an unknown name, ValueError for a bad value."""
        return replace(self, **changes)  # type: ignore[arg-type]
