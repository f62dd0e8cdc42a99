"""What `listen` and `dial` are told of the Kaspa node: the table [node] of a file, its variables, and its flags.

Values and texts only; nothing is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Group, Parameter

from punchbridge.cli.options import NetworkOptions, setting
from punchbridge.config import AccessLists, Config
from punchbridge.config.values import Checked, File, Seconds, Whole
from punchbridge_node.config import NodeConfig, NodeLimits

NODE: Final = Group("Node", sort_key=20)


@dataclass(frozen=True, kw_only=True)
class NodeSettings(Checked):
    """The Kaspa node of `listen` and `dial`."""

    network: str = NodeConfig.network
    """Kaspa network name; both sides need the same."""

    protocol_version: Whole = NodeConfig.protocol_version
    """P2P protocol version to advertise."""

    min_protocol: Whole = NodeConfig.min_protocol_version
    """Lowest protocol version to accept."""

    user_agent: str = NodeConfig.user_agent
    """User agent to advertise."""

    gossip_interval: Seconds = 0.0
    """Between two synthetic transactions to announce; 0: none."""

    block_interval: Seconds = 0.0
    """Between two synthetic blocks to announce; 0: none."""

    ping_interval: Seconds = NodeConfig.ping_interval
    """Between two pings to a peer."""

    stats_interval: Seconds = NodeConfig.stats_interval
    """Between two flow.stats events of a peer."""

    refuse_relayed: bool = False
    """Refuse peers that arrive over a relay (sends a Reject)."""

    peer_store: File = None
    """File that keeps known peers between runs."""

    duration: Seconds = 0.0
    """How long to run; 0: until stopped."""

    connect_timeout: Seconds = 20.0
    """The wait for a channel, which includes a dial through a relay, its punch not."""

    upgrade_wait: Seconds = 5.0
    """For the direct connection to appear once its punch was told: it is there already, or lost."""

    redial_first: Seconds = 0.25
    """A dialer whose paths are all gone waits this long before it asks again; then twice as long each time."""

    redial_most: Seconds = 5.0
    """The longest of these pauses: a relay that restarts is found within it."""

    server_grace: Seconds = 1.0
    """Calls under way get this long once a listener has ended its peers."""

    limits: NodeLimits = NodeLimits()
    """What the node accepts, keeps and waits for."""


@dataclass(frozen=True, kw_only=True)
class NodeProgram(Config):
    """What `listen` and `dial` are told: that of a bridge, and the table [node]."""

    node: NodeSettings = NodeSettings()
    """The Kaspa node."""


DEFAULTS: Final = NodeSettings()


def _flag(name: str, text: str, shown: str | None = None) -> Parameter:
    default = getattr(DEFAULTS, name.replace("-", "_"))
    told = f"{default:g}" if isinstance(default, float) else str(default)
    return setting(name, text, shown=shown or told, group=NODE)


@Parameter(name="*")
@dataclass(frozen=True)
class NodeFlags:
    """The flags of the node; None where one is not given."""

    network: Annotated[str | None, _flag("network", "Kaspa network name; both sides need the same.")] = None
    protocol_version: Annotated[int | None, _flag("protocol-version", "P2P protocol version to advertise.")] = None
    min_protocol: Annotated[int | None, _flag("min-protocol", "Lowest protocol version to accept.")] = None
    user_agent: Annotated[str | None, _flag("user-agent", "User agent to advertise.")] = None
    gossip_interval: Annotated[
        float | None, _flag("gossip-interval", "Seconds between two synthetic transactions to announce; 0: none.")
    ] = None
    block_interval: Annotated[
        float | None, _flag("block-interval", "Seconds between two synthetic blocks to announce; 0: none.")
    ] = None
    ping_interval: Annotated[float | None, _flag("ping-interval", "Seconds between two pings to a peer.")] = None
    stats_interval: Annotated[
        float | None, _flag("stats-interval", "Seconds between two flow.stats events of a peer.")
    ] = None
    refuse_relayed: Annotated[
        bool | None, _flag("refuse-relayed", "Refuse peers that arrive over a relay (sends a Reject).", "no")
    ] = None
    peer_store: Annotated[Path | None, _flag("peer-store", "File that keeps known peers between runs.", "none")] = None
    duration: Annotated[float | None, _flag("duration", "Seconds to run; 0: until stopped.")] = None

    def configuration(
        self,
        endpoint: NetworkOptions,
        *,
        relays: Sequence[str] | None = None,
        key: Path | None = None,
        access: Mapping[str, Any] | None = None,
    ) -> NodeProgram:
        """What file, environment and flags say together. access: the flags about who may call; without such flags, and
        without a list that names somebody, anybody may. Raises ConfigError and AddressError."""
        given: dict[str, Any] = {f"node.{item.name}": getattr(self, item.name) for item in fields(self)}
        if self.peer_store is not None:
            given["node.peer_store"] = str(self.peer_store)
        base = NodeProgram(access=AccessLists(until_listed=True))
        return endpoint.over(base, relays=relays, key=key, more={**given, **(access or {})}, flagged=FLAGS)


FLAGS: Final = {f"node.{item.name}": f"--{item.name.replace('_', '-')}" for item in fields(NodeFlags)}
"""Settings of the node that have a flag of their own."""
