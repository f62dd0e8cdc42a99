"""What the node is told at its start: network, versions, times, limits. Values only; nothing is read or opened.

Defaults follow the Kaspa wire; the shorter intervals of a demo are set by its caller.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace

from punchbridge.version import __version__

from . import limits

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


@dataclass(frozen=True)
class HandshakeTimes:
    """Longest waits, in seconds, for the peer's Version and Verack (from the start) and Ready (from ours)."""

    version: float = limits.VERSION_TIMEOUT
    verack: float = limits.VERACK_TIMEOUT
    ready: float = limits.READY_TIMEOUT

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
    slow_path_multiplier: float = limits.SLOW_PATH_MULTIPLIER
    connect_timeout: float = limits.CONNECT_TIMEOUT
    ping_interval: float = limits.PING_INTERVAL
    answer_timeout: float = limits.ANSWER_TIMEOUT
    stats_interval: float = limits.STATS_INTERVAL
    transaction_broadcast_interval: float = limits.TRANSACTION_BROADCAST_INTERVAL
    max_peers: int = limits.MAX_PEERS
    max_handshakes: int = limits.MAX_HANDSHAKES
    gossip: GossipSource = GossipSource()

    def __post_init__(self) -> None:
        if not self.network.startswith("kaspa-"):
            raise ValueError(f"network must begin with 'kaspa-': {self.network!r}")
        if len(self.node_id) != limits.NODE_ID_BYTES:
            raise ValueError(f"node_id must be {limits.NODE_ID_BYTES} bytes")
        if not 0 <= self.min_protocol_version <= self.protocol_version < 1 << 32:
            raise ValueError("0 <= min_protocol_version <= protocol_version < 2^32 does not hold")
        for name in ("ping_interval", "answer_timeout", "stats_interval", "connect_timeout", "slow_path_multiplier"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("max_peers", "max_handshakes", "blocks_per_second"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def with_changes(self, **changes: object) -> NodeConfig:
        """A copy with these fields changed. Raises TypeError for an unknown name, ValueError for a bad value."""
        return replace(self, **changes)  # type: ignore[arg-type]
