"""gRPC over a py-libp2p host that the application runs already (needs `pip install 'punchbridge[libp2p]'`).

python over_py_libp2p.py                 a server; prints the address to call
python over_py_libp2p.py ADDRESS/p2p/ID  a client; calls it once
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import trio
from libp2p import new_host
from multiaddr import Multiaddr

import punchbridge
from punchbridge.libp2p import open_over


def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
    return f"hello {request.decode()}, peer {punchbridge.peer(context).peer_id}".encode()


async def main() -> None:
    host = new_host()
    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    # Whoever knows the address may call this example; allow=["12D3KooW…"] names those who may.
    async with host.run(listen_addrs=listen), open_over(host, allow=punchbridge.ANYONE, allow_private=True) as b:
        if len(sys.argv) > 1:
            with b.channel(sys.argv[1]) as channel:
                call = channel.unary_unary("/demo.Greeter/Hello")
                print((await trio.to_thread.run_sync(lambda: call(b"world", timeout=20))).decode())
            return
        server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.unary_unary_rpc_method_handler(hello)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Greeter", {"Hello": handler}),))
        await b.serve(server)
        server.start()
        print(host.get_addrs()[0], flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
