"""gRPC over a stream of a stock py-libp2p host: a unix socket on each side and two copying tasks between.

What somebody would write who has py-libp2p and no bridge. Both functions start a daemon thread that runs trio, so that
the host shares the process with gRPC, as ours does.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID, Transport
from multiaddr import Multiaddr

PROTOCOL = TProtocol("/bench/grpc/1.0.0")
READ = 65536


def _host() -> Any:
    keys = create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_static_key().private_key)
    return new_host(key_pair=keys, sec_opt={PROTOCOL_ID: noise}, muxer_preference="YAMUX")


async def _join(local: trio.SocketStream, stream: Any) -> None:
    async def out() -> None:
        while data := await local.receive_some(READ):
            await stream.write(bytes(data))
        nursery.cancel_scope.cancel()

    async def back() -> None:
        while data := await stream.read(READ):
            await local.send_all(data)
        nursery.cancel_scope.cancel()

    try:
        async with local, trio.open_nursery() as nursery:
            nursery.start_soon(out)
            nursery.start_soon(back)
    except* (StreamError, trio.BrokenResourceError):
        pass  # the other end is done
    await stream.reset()


def _in_thread(work: Callable[[Future[str]], Awaitable[None]]) -> str:
    found: Future[str] = Future()

    def run() -> None:
        try:
            trio.run(work, found)
        except BaseException as problem:  # noqa: ASYNC103, BLE001 - told to the thread that waits
            if not found.done():
                found.set_exception(problem)

    threading.Thread(target=run, daemon=True).start()
    return found.result(20)


def serve(server: str) -> str:
    """Hands inbound streams to the gRPC server at a unix path; returns the address to dial."""

    async def work(found: Future[str]) -> None:
        host = _host()

        async def handler(stream: Any) -> None:
            await _join(await trio.open_unix_socket(server), stream)

        host.set_stream_handler(PROTOCOL, handler)
        async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            found.set_result(next(str(one) for one in host.get_addrs() if "127.0.0.1" in str(one)))
            await trio.sleep_forever()

    return _in_thread(work)


def forward(addr: str) -> str:
    """The path of a unix socket; each connection to it gets a stream to the host at `addr`."""

    async def work(found: Future[str]) -> None:
        host, info = _host(), info_from_p2p_addr(Multiaddr(addr))

        async def carry(local: trio.SocketStream) -> None:
            await _join(local, await host.new_stream(info.peer_id, [PROTOCOL]))

        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            async with host.run(listen_addrs=[]):
                await host.connect(info)
                listener = trio.socket.socket(trio.socket.AF_UNIX)
                await listener.bind(f"{folder}/s")
                listener.listen()
                found.set_result(f"{folder}/s")
                await trio.serve_listeners(carry, [trio.SocketListener(listener)])

    return _in_thread(work)
