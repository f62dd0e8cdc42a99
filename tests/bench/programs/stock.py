"""A stock py-libp2p host (TCP, Noise, Yamux) that answers perf and ping. Orders: dial, perf, ping."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID, Transport
from multiaddr import Multiaddr

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

import perf  # noqa: E402
from control import Order, obey_stdin, ready  # noqa: E402
from echo import echo_back, echo_times  # noqa: E402

PING = "/ipfs/ping/1.0.0"
WRITE = 65536


class Adapter(trio.abc.HalfCloseableStream):
    """A py-libp2p stream as a trio stream. Its `close` ends the writing half only."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send_all(self, data: Any) -> None:
        view = memoryview(data)
        for at in range(0, len(view), WRITE):
            await self._stream.write(bytes(view[at : at + WRITE]))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return bytes(await self._stream.read(max_bytes or 262144))
        except StreamEOF:
            return b""

    async def send_eof(self) -> None:
        await self._stream.close()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", default=[])
    options = parser.parse_args()
    keys = create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_static_key().private_key)
    host = new_host(key_pair=keys, sec_opt={PROTOCOL_ID: noise}, muxer_preference="YAMUX")

    async def on_perf(stream: Any) -> None:
        await perf.answer(Adapter(stream))

    async def on_ping(stream: Any) -> None:
        try:
            await echo_back(Adapter(stream))
        except StreamError:
            pass  # the client is done

    async def obey(order: Order) -> dict[str, Any]:
        if order["do"] == "dial":
            info = info_from_p2p_addr(Multiaddr(order["addr"]))
            await host.connect(info)
            return {"peer": str(info.peer_id)}
        peer = ID.from_base58(order["peer"])
        name = "/perf/1.0.0" if order["do"] == "perf" else PING
        stream = Adapter(await host.new_stream(peer, [TProtocol(name)]))
        if order["do"] == "perf":
            return {"seconds": (await perf.ask(stream, up=order["up"], down=order["down"])).seconds}
        times = await echo_times(stream, order["count"])
        await stream.send_eof()
        return {"ms": times}

    host.set_stream_handler(TProtocol(perf.PERF), on_perf)
    host.set_stream_handler(TProtocol(PING), on_ping)
    async with host.run(listen_addrs=[Multiaddr(one) for one in options.listen]):
        mine = [str(one) for one in host.get_addrs() if "127.0.0.1" in str(one)]
        ready(str(host.get_id()), mine, f"py-libp2p {version('libp2p')}")
        await obey_stdin(obey)


if __name__ == "__main__":
    trio.run(main)
