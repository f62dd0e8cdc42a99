"""An application with a stock py-libp2p host, as a peer of the interop suite: gRPC over that host's streams.

The host is py-libp2p's `new_host` with Noise and Yamux; the bridge is `punchbridge.libp2p.open_over` of it. The
application can cut the host's connections, as it could without the bridge.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Any

import grpc
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from multiaddr import Multiaddr
from service import UNLIMITED, Orders, make_server, on_event
from wire import Order, options, say, serve_orders

from punchbridge import ANYONE
from punchbridge.libp2p import open_over


async def main() -> None:
    given, keys = options(), create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_static_key().private_key)
    host: Any = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
    with ThreadPoolExecutor(16) as pool:
        async with (
            host.run(listen_addrs=[Multiaddr(addr) for addr in given.listen]),
            open_over(host, allow=ANYONE, allow_private=True, events=on_event) as b,
        ):
            server = make_server(pool)
            await b.serve(server)
            server.start()
            orders = Orders(lambda addr: trio.from_thread.run_sync(partial(b.channel, addr, options=UNLIMITED)))

            async def obey(order: Order) -> dict[str, Any]:
                if order["do"] == "cut":
                    # Not host.disconnect: py-libp2p 0.8 forgets a connection that comes while that one closes others.
                    for one in host.get_network().get_connections(ID.from_base58(order["peer"])):
                        await one.close()
                    return {}
                return await trio.to_thread.run_sync(orders.obey, order, abandon_on_cancel=True)

            addrs = [str(addr) for addr in host.get_addrs()]
            over = f"grpcio {grpc.__version__} over py-libp2p {version('libp2p')}"
            say({"event": "ready", "peer": b.peer_id, "addrs": addrs, "version": over})
            await serve_orders(obey)
            await trio.to_thread.run_sync(server.stop(None).wait)


if __name__ == "__main__":
    trio.run(main)
