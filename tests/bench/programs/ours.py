"""A host of ours that answers perf and ping, and takes orders; each order is one function below."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

import perf  # noqa: E402
from control import Order, obey_stdin, pinned, ready  # noqa: E402
from echo import SIZE, echo_times  # noqa: E402

from punchbridge.access.policy import OPEN  # noqa: E402
from punchbridge.addresses import parse, with_peer  # noqa: E402
from punchbridge.config import Limits, PingLimits, Punch, SwarmLimits  # noqa: E402
from punchbridge.eventhub import EventHub  # noqa: E402
from punchbridge.events import Event, PunchFailed, PunchSucceeded  # noqa: E402
from punchbridge.host.host import Host, HostConfig, open_host  # noqa: E402
from punchbridge.identity import Identity, parse_peer_id, peer_text  # noqa: E402
from punchbridge.transport.base import Connection  # noqa: E402
from punchbridge.wire.ping import PING  # noqa: E402

MANY = 4096
Answer = dict[str, Any]


class Orders:
    """What the driver can ask for. Peers are named by id, connections by nothing: the best one is used."""

    def __init__(self, host: Host, punches: trio.MemoryReceiveChannel[Event]) -> None:
        self.host = host
        self.punches = punches
        self.perf_service = perf.PerfService(host.swarm)
        self.circuits: list[Connection] = []

    async def dial(self, order: Order) -> Answer:
        connection = await self.host.dial(parse(order["addr"]))
        return {"peer": peer_text(connection.peer)}

    async def first(self, order: Order) -> Answer:
        """A fresh connection, and the seconds until the first byte of an application stream came back."""
        began = time.perf_counter()
        connection = await self.host.swarm.dial(parse(order["addr"]), fresh=True)
        connected = time.perf_counter() - began
        stream = await connection.open_stream([PING], lazy=True)
        await stream.send_all(bytes(SIZE))
        await stream.receive_some(1)
        seconds = time.perf_counter() - began
        await connection.aclose()
        return {"connected": connected, "seconds": seconds}

    async def reserve(self, order: Order) -> Answer:
        began = time.perf_counter()
        reservation = await self.host.relay_client.reserve(parse(order["addr"]))
        me = self.host.swarm.peer
        return {"addrs": [str(with_peer(one, me)) for one in reservation.addrs], "seconds": time.perf_counter() - began}

    async def punch(self, order: Order) -> Answer:
        """A relayed dial, then the wait for the direct connection: milliseconds since CONNECT."""
        await self.host.dial(parse(order["addr"]))
        event = await self.punches.receive()
        if isinstance(event, PunchFailed):
            return {"failed": event.code}
        assert isinstance(event, PunchSucceeded)
        return {"ms": event.elapsed_ms, "attempt": event.attempt}

    async def perf(self, order: Order) -> Answer:
        found = await self.perf_service.measure(parse_peer_id(order["peer"]), up=order["up"], down=order["down"])
        return {"seconds": found.seconds}

    async def ping(self, order: Order) -> Answer:
        stream = await self.host.swarm.open_stream(parse_peer_id(order["peer"]), (PING,))
        try:
            return {"ms": await echo_times(stream, order["count"])}
        finally:
            stream.abort()

    async def flow(self, order: Order) -> Answer:
        """Receives for `seconds`, and counts what came after the first `skip` of them."""
        stream = await self.host.swarm.open_stream(parse_peer_id(order["peer"]), (perf.PERF,))
        counted, start = 0, time.perf_counter()
        try:
            await stream.send_all((1 << 40).to_bytes(8, "big"))
            await stream.send_eof()
            while (elapsed := time.perf_counter() - start) < order["seconds"]:
                size = len(await stream.receive_some())
                counted += size if elapsed >= order["skip"] else 0
        finally:
            stream.abort()
        return {"rate": counted / 1e6 / (order["seconds"] - order["skip"])}

    async def circuits_open(self, order: Order) -> Answer:
        """More connections over a relay, each on a circuit of its own."""
        for _ in range(order["count"]):
            self.circuits.append(await self.host.swarm.dial(parse(order["addr"]), fresh=True))
        return {"open": sum(not one.closed.is_set() for one in self.circuits)}

    async def circuits_perf(self, order: Order) -> Answer:
        """Uploads through all circuits at once."""

        async def one(connection: Connection) -> None:
            await perf.ask(await connection.open_stream([perf.PERF]), up=order["each"], down=0)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for connection in self.circuits:
                nursery.start_soon(one, connection)
        return {"seconds": time.perf_counter() - began}

    async def circuits_close(self, order: Order) -> Answer:
        for connection in self.circuits:
            await connection.aclose()
        self.circuits.clear()
        return {}

    async def __call__(self, order: Order) -> Answer:
        act: Callable[[Order], Awaitable[Answer]] = getattr(self, order["do"])
        return await act(order)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", default=[])
    parser.add_argument("--punch", action="store_true")
    options = parser.parse_args()
    listen = tuple(parse(one) for one in options.listen)
    hub = EventHub()
    send, receive = trio.open_memory_channel[Event](64)
    hub.subscribe(lambda event: send.send_nowait(event) if isinstance(event, PunchSucceeded | PunchFailed) else None)
    many = Limits(
        ping=PingLimits(every=0),
        swarm=SwarmLimits(connections=MANY, connections_per_address=MANY, connections_per_peer=MANY),
    )
    config = HostConfig(
        Identity.generate(),
        listen=listen,
        access=OPEN,
        allow_private=True,
        punch=Punch(enabled=options.punch),
        autonat=False,
        limits=many,
    )
    async with open_host(config, hub) as host, trio.open_nursery() as nursery:
        orders = Orders(host, receive)
        await nursery.start(orders.perf_service.run)
        me = host.swarm.peer
        ready(peer_text(me), [str(with_peer(one, me)) for one in host.swarm.listen_addrs()], pinned())
        await obey_stdin(orders)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
