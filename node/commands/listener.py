"""The listening node: takes peers through the bridge, prints where it can be dialled, follows their paths."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from punchbridge import peer as peer_of_call
from punchbridge.cli.reservations import Reservations
from punchbridge.cli.service import direct_addrs
from punchbridge_node.commands.application import open_node
from punchbridge_node.commands.flags import NodeSettings
from punchbridge_node.commands.paths import Paths
from punchbridge_node.commands.service import for_duration
from punchbridge_node.transport import SERVER_OPTIONS, identify_bridge

if TYPE_CHECKING:
    from punchbridge import Bridge
    from punchbridge.cli.report import Reporter
    from punchbridge_node.commands.service import Feed


@dataclass
class Listener:
    """Made for one run. `timeout`: seconds for the first relay to accept, 0 for ever."""

    report: Reporter
    relays: tuple[str, ...]
    timeout: float
    settings: NodeSettings

    async def run(self, bridge: Bridge, feed: Feed) -> int:
        """Serves until cancelled or for --duration seconds. Raises when no relay accepts in time."""
        async with open_node(self.settings, self.report.emit) as node:
            server = grpc.aio.server(options=SERVER_OPTIONS)
            node.add_to_server(server, identify_bridge(peer_of_call))
            bridge.serve(server)
            await server.start()
            try:
                async with for_duration(self.settings.duration):
                    await self._watch(bridge, feed)
            finally:
                await node.close()
                await server.stop(self.settings.server_grace)
        return 0

    async def _watch(self, bridge: Bridge, feed: Feed) -> None:
        paths = Paths(self.report.emit)
        reservations = Reservations(self.report, self.relays)
        if not self.relays:
            for addr in direct_addrs(bridge):
                self.report.data(addr)
        else:
            try:
                async with asyncio.timeout(self.timeout or None):
                    await reservations.first(feed)
            except TimeoutError:
                raise reservations.late(self.timeout) from None
        while True:
            event = await feed.get()
            reservations.note(event)
            paths.follow(event)
            self.report.path = paths.best() or self.report.path
