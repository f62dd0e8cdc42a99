"""Our Kaspa node over plain TCP as a peer of the interop suite: it serves, dials and counts.

asyncio, because the node is; orders come from a thread that reads stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any

import grpc.aio
from wire import say

from punchbridge.events import Event
from punchbridge_node import gossip, transport
from punchbridge_node.config import NodeConfig
from punchbridge_node.events import FlowStats, HandshakeCompleted, HandshakeRefused, PeerDisconnected
from punchbridge_node.inventory import BodyStore
from punchbridge_node.node import Node
from punchbridge_node.transport import tcp_peer

Counts = dict[str, dict[str, int]]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("-serve", required=True)
    parser.add_argument("-network", default="kaspa-devnet")
    parser.add_argument("-protocol", type=int, default=10)
    parser.add_argument("-ping", type=float, default=1.0)
    return parser.parse_args()


class Peer:
    """Carries out orders on one node."""

    def __init__(self, node: Node, stack: AsyncExitStack, counts: Counts) -> None:
        self._node = node
        self._stack = stack
        self._counts = counts

    async def do_connect(self, order: dict[str, Any]) -> dict[str, Any]:
        host, _, port = order["addr"].rpartition(":")
        channel = grpc.aio.insecure_channel(order["addr"], options=transport.CHANNEL_OPTIONS)
        await self._stack.enter_async_context(channel)
        link = await self._node.connect(channel, tcp_peer(host, int(port)))
        return {"peer": link.record.label}

    async def do_counts(self, _order: dict[str, Any]) -> dict[str, Any]:
        return {"counts": self._counts, "active": len(self._node.hub.active())}

    async def do_publish(self, _order: dict[str, Any]) -> dict[str, Any]:
        inventory = self._node.inventory
        transaction = inventory.publish_transaction(gossip.transaction(200))
        block = inventory.publish_block(gossip.block(None, 200))
        return {"transactions": [transaction.hex()], "blocks": [block.hex()]}

    async def do_has(self, order: dict[str, Any]) -> dict[str, Any]:
        inventory = self._node.inventory
        stores: dict[str, BodyStore[Any]] = {"transactions": inventory.transactions, "blocks": inventory.blocks}
        return {kind: all(bytes.fromhex(one) in store for one in order[kind]) for kind, store in stores.items()}

    async def answer(self, order: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(60):
                say({"id": order["id"], "ok": await getattr(self, f"do_{order['do']}")(order)})
        except Exception as problem:  # noqa: BLE001 - whatever happened is the answer
            say({"id": order["id"], "error": f"{type(problem).__name__}: {problem}"})


def hear(counts: Counts, event: Event) -> None:
    if isinstance(event, FlowStats):
        counts["sent"], counts["received"] = dict(event.sent), dict(event.received)
    elif isinstance(event, HandshakeCompleted):
        say({"event": "handshake", "user_agent": event.user_agent, "path": event.path})
    elif isinstance(event, HandshakeRefused):
        say({"event": "refused", "failure": event.failure, "error": event.reason, "by": event.by})
    elif isinstance(event, PeerDisconnected):
        say({"event": "ended", "reason": event.reason, "detail": event.detail})


async def main() -> None:
    given, counts = options(), Counts()
    config = NodeConfig(
        network=given.network,
        protocol_version=given.protocol,
        min_protocol_version=given.protocol,
        stats_interval=0.2,
        ping_interval=given.ping,
    )
    orders: asyncio.Queue[str] = asyncio.Queue(100)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in chain(sys.stdin, ("",)):
            asyncio.run_coroutine_threadsafe(orders.put(line), loop).result()

    async with AsyncExitStack() as stack, Node(config, emit=lambda event: hear(counts, event)) as node:
        server = grpc.aio.server(options=transport.SERVER_OPTIONS)
        node.add_to_server(server)
        server.add_insecure_port(given.serve)
        await server.start()
        threading.Thread(target=read, daemon=True).start()
        say({"event": "ready", "peer": "", "addrs": [given.serve], "version": config.user_agent})
        peer = Peer(node, stack, counts)
        async with asyncio.TaskGroup() as group:
            while line := await orders.get():
                group.create_task(peer.answer(json.loads(line)))
        await node.close()
        await server.stop(0.5)


if __name__ == "__main__":
    asyncio.run(main())
