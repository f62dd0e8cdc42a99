"""The flags of the Kaspa node, shared by `listen` and `dial`. Defaults are those of `NodeConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from punchbridge.cli.options import flag
from punchbridge_node.config import NodeConfig

NODE: Final = Group("Node", sort_key=20)


@Parameter(name="*")
@dataclass(frozen=True)
class NodeFlags:
    """What the node is told at its start."""

    network: Annotated[str, flag("network", "Kaspa network name; both sides need the same.", group=NODE)] = (
        NodeConfig.network
    )
    protocol_version: Annotated[int, flag("protocol-version", "P2P protocol version to advertise.", group=NODE)] = (
        NodeConfig.protocol_version
    )
    min_protocol: Annotated[int, flag("min-protocol", "Lowest protocol version to accept.", group=NODE)] = (
        NodeConfig.min_protocol_version
    )
    user_agent: Annotated[str, flag("user-agent", "User agent to advertise.", group=NODE)] = NodeConfig.user_agent
    gossip_interval: Annotated[
        float,
        flag("gossip-interval", "Seconds between two synthetic transactions to announce; 0: none.", group=NODE),
    ] = 0.0
    block_interval: Annotated[
        float, flag("block-interval", "Seconds between two synthetic blocks to announce; 0: none.", group=NODE)
    ] = 0.0
    ping_interval: Annotated[float, flag("ping-interval", "Seconds between two pings to a peer.", group=NODE)] = (
        NodeConfig.ping_interval
    )
    stats_interval: Annotated[
        float, flag("stats-interval", "Seconds between two flow.stats events of a peer.", group=NODE)
    ] = NodeConfig.stats_interval
    refuse_relayed: Annotated[
        bool, flag("refuse-relayed", "Refuse peers that arrive over a relay (sends a Reject).", group=NODE)
    ] = False
    peer_store: Annotated[
        Path | None, flag("peer-store", "File that keeps known peers between runs; none by default.", group=NODE)
    ] = None
    duration: Annotated[float, flag("duration", "Seconds to run; 0: until stopped.", group=NODE)] = 0.0
