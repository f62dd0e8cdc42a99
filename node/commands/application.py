"""The node of `listen` and `dial`: made from settings, joined to the bridge, its counters kept for the summary.

Knows how settings become a NodeConfig and what the summary tells; it neither serves nor dials.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from punchbridge.cli.exits import ErrorTable, Exit
from punchbridge.errors import ConfigError
from punchbridge.events import Event, PunchFailed, PunchSucceeded
from punchbridge_node.commands.flags import NodeSettings
from punchbridge_node.config import GossipSource, NodeConfig
from punchbridge_node.errors import HandshakeError, HandshakeFailure, PeerStoreError
from punchbridge_node.events import FlowStats
from punchbridge_node.node import Node
from punchbridge_node.peerstore import PeerStore
from punchbridge_node.session import accept_all, refuse_relayed
from punchbridge_node.storekeeper import StoreKeeper

if TYPE_CHECKING:
    from punchbridge.cli.report import Reporter


def node_config(settings: NodeSettings) -> NodeConfig:
    """The node's configuration. Raises ConfigError that names what is wrong."""
    try:
        return NodeConfig(
            network=settings.network,
            protocol_version=settings.protocol_version,
            min_protocol_version=settings.min_protocol,
            user_agent=settings.user_agent,
            ping_interval=settings.ping_interval,
            stats_interval=settings.stats_interval,
            connect_timeout=settings.connect_timeout,
            limits=settings.limits,
            gossip=GossipSource(
                transaction_interval=settings.gossip_interval or None, block_interval=settings.block_interval or None
            ),
        )
    except ValueError as problem:
        raise ConfigError(str(problem)) from None


@contextlib.asynccontextmanager
async def open_node(settings: NodeSettings, emit: Callable[[Event], None]) -> AsyncIterator[Node]:
    """The running node of these settings, with its peer store when one is named. Raises ConfigError, PeerStoreError."""
    config = node_config(settings)
    policy = refuse_relayed if settings.refuse_relayed else accept_all
    with contextlib.ExitStack() as stack:
        keeper = None
        if settings.peer_store is not None:
            store = PeerStore(Path(settings.peer_store), config.limits.store)
            keeper = StoreKeeper(stack.enter_context(contextlib.closing(store)))
        async with Node(config, emit=emit, policy=policy, keeper=keeper) as node:
            yield node


@dataclass
class Tally:
    """What the summary tells about a run; an event subscriber."""

    flows: dict[str, dict[str, Any]] = field(default_factory=dict)
    punches: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if isinstance(event, FlowStats):
            self.flows[event.peer] = {"sent": dict(event.sent), "received": dict(event.received)}
        elif isinstance(event, PunchSucceeded):
            self.punches[event.peer] = {
                "outcome": "direct",
                "attempt": event.attempt,
                "elapsed_ms": event.elapsed_ms,
                "local": event.local,
                "remote": event.remote,
            }
        elif isinstance(event, PunchFailed) and self.punches.get(event.peer, {}).get("outcome") != "direct":
            self.punches[event.peer] = {
                "outcome": "relay",
                "attempt": event.attempt,
                "code": event.code.value,
                "run": event.run,
            }

    def into(self, report: Reporter) -> None:
        """Puts what was counted into the summary."""
        report.detail.update(flows=self.flows, punch=self.punches)


def final(problem: HandshakeError) -> bool:
    """True when asking again cannot help: the other node refused us for what we are."""
    return problem.failure in {
        HandshakeFailure.BAD_NODE_ID,
        HandshakeFailure.LOOPBACK,
        HandshakeFailure.WRONG_NETWORK,
        HandshakeFailure.USER_AGENT,
        HandshakeFailure.PROTOCOL_VERSION,
        HandshakeFailure.POLICY,
        HandshakeFailure.REJECTED_BY_PEER,
    }


_ADVICE = {
    HandshakeFailure.WRONG_NETWORK: "give both sides the same --network",
    HandshakeFailure.PROTOCOL_VERSION: "see --protocol-version and --min-protocol on both sides",
    HandshakeFailure.POLICY: "this node's own rules refused the peer",
    HandshakeFailure.LOOPBACK: "this is the same node; dial another one, or give this one another --key",
    HandshakeFailure.DUPLICATE: "the peer is connected already; stop the other dialer, or use another --key",
    HandshakeFailure.REJECTED_BY_PEER: "these are the peer's words; what they name must fit on both sides",
    HandshakeFailure.VERSION_TIMEOUT: "the peer accepted the stream and said nothing; is it a node of this protocol?",
}


class NodeRefused(Exception):
    """The two nodes did not shake hands. `code` is the word of HandshakeFailure; the text says what to do."""

    def __init__(self, problem: HandshakeError) -> None:
        advice = _ADVICE.get(problem.failure, "")
        super().__init__(f"the handshake failed: {problem.reason}{'; ' + advice if advice else ''}")
        self.code = problem.failure.value


class NodeSilent(NodeRefused):
    """The stream stood, the other node did not answer."""


_SILENT = {
    HandshakeFailure.VERSION_TIMEOUT,
    HandshakeFailure.VERACK_TIMEOUT,
    HandshakeFailure.READY_TIMEOUT,
    HandshakeFailure.CLOSED_BY_PEER,
    HandshakeFailure.UNREACHABLE,
}

NODE_ERRORS: ErrorTable = {
    NodeSilent: Exit.UNREACHABLE,
    NodeRefused: Exit.ERROR,
    PeerStoreError: Exit.USAGE,
}
"""Exit codes of the node's own failures, beside `punchbridge.cli.exits.ERRORS`."""


def refused(problem: HandshakeError) -> NodeRefused:
    """The failure of a handshake as the user is told it."""
    return NodeSilent(problem) if problem.failure in _SILENT else NodeRefused(problem)
