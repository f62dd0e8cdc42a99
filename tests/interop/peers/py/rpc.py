"""grpcio through the bridge, as a peer of the interop suite: a served grpc.Server, and channels to other peers."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from service import UNLIMITED, Orders, make_server, on_event
from wire import Order, options, say

import punchbridge


def answer(orders: Orders, order: Order) -> None:
    try:
        say({"id": order["id"], "ok": orders.obey(order)})
    except Exception as problem:  # noqa: BLE001 - whatever happened is the answer
        say({"id": order["id"], "error": f"{type(problem).__name__}: {problem}"})


def main() -> None:
    with (
        ThreadPoolExecutor(16) as pool,
        punchbridge.open(listen=options().listen, allow_private=True, allow=punchbridge.ANYONE, events=on_event) as b,
    ):
        server = make_server(pool)
        b.serve(server)
        server.start()
        orders = Orders(lambda addr: b.channel(addr, options=UNLIMITED))
        addrs = [f"{addr.partition('/p2p/')[0]}/p2p/{b.peer_id}" for addr in b.addrs]
        say({"event": "ready", "peer": b.peer_id, "addrs": addrs, "version": f"grpcio {grpc.__version__}"})
        for line in sys.stdin:
            pool.submit(answer, orders, json.loads(line))
        server.stop(None).wait()


if __name__ == "__main__":
    main()
