"""The flows of a peer connection. `subscribe_all` is called before Ready, `Flow.run` after it.

A flow reads routes and sends messages; it knows the peer's record and the node's stores, never the transport. It
runs until cancelled and raises ProtocolViolation, AnswerTimeout or ConnectionOver.
"""

from __future__ import annotations

from ..config import NodeConfig
from ..connection import PeerConnection
from .addresses import AnswerAddresses, AskAddresses
from .base import Flow, FlowContext
from .blocks import AnswerBlocks, RelayBlocks
from .ping import AnswerPings, SendPings
from .sink import TakeUnanswered
from .transactions import AnswerTransactions, RelayTransactions

ALL: tuple[type[Flow], ...] = (
    SendPings,
    AnswerPings,
    AskAddresses,
    AnswerAddresses,
    RelayBlocks,
    AnswerBlocks,
    RelayTransactions,
    AnswerTransactions,
    TakeUnanswered,
)

__all__ = ["ALL", "Flow", "FlowContext", "subscribe_all"]


def subscribe_all(connection: PeerConnection, config: NodeConfig) -> list[Flow]:
    """Make every flow's routes; the peer may send flow messages as soon as we have said Ready."""
    return [flow(connection, config) for flow in ALL]
