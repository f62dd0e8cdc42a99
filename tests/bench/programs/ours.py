"""A host of ours that answers perf and ping. Orders: dial, perf, ping, reserve, conns."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import trio

sys.path[:0] = [str(Path(__file__).resolve().parents[3])]

from control import Order, obey_stdin, pinned, ready  # noqa: E402
from echo import echo_times  # noqa: E402

from bridge.addresses import parse, with_peer  # noqa: E402
from bridge.behaviours.host import Host, HostConfig, open_host  # noqa: E402
from bridge.behaviours.perf import PerfService  # noqa: E402
from bridge.events import EventHub  # noqa: E402
from bridge.identity import Identity, parse_peer_id, peer_text  # noqa: E402
from bridge.protocol.ping import PING  # noqa: E402


def obedience(host: Host, perf: PerfService) -> Any:
    async def obey(order: Order) -> dict[str, Any]:
        if order["do"] == "dial":
            connection = await host.dial(parse(order["addr"]))
            return {"peer": peer_text(connection.peer)}
        if order["do"] == "reserve":
            reservation = await host.swarm.reserve(parse(order["addr"]))
            return {"addrs": [str(with_peer(addr, host.swarm.peer)) for addr in reservation.addrs]}
        peer = parse_peer_id(order["peer"])
        if order["do"] == "perf":
            return {"seconds": (await perf.measure(peer, up=order["up"], down=order["down"])).seconds}
        if order["do"] == "ping":
            stream = await host.swarm.open_stream(peer, (PING,))
            try:
                return {"ms": await echo_times(stream, order["count"])}
            finally:
                stream.abort()
        raise ValueError(f"unknown order {order['do']}")

    return obey


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", default=[])
    options = parser.parse_args()
    listen = tuple(parse(one) for one in options.listen)
    config = HostConfig(Identity.generate(), listen=listen, allow_private=True, punch=False, autonat=False)
    async with open_host(config, EventHub()) as host, trio.open_nursery() as nursery:
        perf = PerfService(host.swarm)
        await nursery.start(perf.run)
        me = host.swarm.peer
        ready(peer_text(me), [str(with_peer(one, me)) for one in host.swarm.listen_addrs()], pinned())
        await obey_stdin(obedience(host, perf))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
