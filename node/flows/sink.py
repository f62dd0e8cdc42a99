"""Requests of the initial block download: taken off the wire, never answered. This node has no consensus to serve."""

from __future__ import annotations

from .. import wire
from ..config import NodeConfig
from ..connection import PeerConnection
from .base import Flow, FlowContext


class TakeUnanswered(Flow):
    """Without this route, a kaspad that asks would be cut off for "no route" while its other flows are well."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._requests = connection.subscribe(wire.UNANSWERED_REQUESTS)

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            await self._requests.get()
