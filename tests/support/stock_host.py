"""A stock py-libp2p host that echoes, counts or resets what it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID, Transport
from multiaddr import Multiaddr

from punchbridge.peer_id import PeerId

ECHO, RESET, ONE_WAY = "/test/echo/1.0.0", "/test/reset/1.0.0", "/test/one-way/1.0.0"


@dataclass
class Stock:
    host: Any
    peer: PeerId
    addr: Multiaddr
    handled: trio.MemoryReceiveChannel[bytes]


def ours(peer: ID) -> PeerId:
    """py-libp2p's peer id as ours."""
    return PeerId(peer.to_bytes())


def theirs(peer: PeerId) -> ID:
    """Our peer id as py-libp2p's."""
    return ID(peer.to_bytes())


def make_host() -> Any:
    keys = create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_static_key().private_key)
    # It dials no peer on its own account: those connections would outlive the tests.
    quiet = ConnectionConfig(min_connections=0, low_watermark=0)
    return new_host(key_pair=keys, sec_opt={PROTOCOL_ID: noise}, muxer_preference="YAMUX", connection_config=quiet)


@asynccontextmanager
async def stock_host() -> AsyncIterator[Stock]:
    host = make_host()
    told, handled = trio.open_memory_channel[bytes](16)

    async def echo(stream: Any) -> None:
        while data := await read_all_or_some(stream):
            await stream.write(data)
        await stream.close()

    async def one_way(stream: Any) -> None:
        received = b""
        while data := await read_all_or_some(stream):
            received += data
        await stream.write(b"got %d" % len(received))
        await stream.close()
        told.send_nowait(received)

    async def reset(stream: Any) -> None:
        await stream.read(4)
        await stream.reset()

    host.set_stream_handler(ECHO, echo)
    host.set_stream_handler(ONE_WAY, one_way)
    host.set_stream_handler(RESET, reset)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        addr = next(one for one in host.get_addrs() if "127.0.0.1" in str(one))
        yield Stock(host, ours(host.get_id()), addr.decapsulate("/p2p"), handled)
    told.close()
    handled.close()


async def read_all_or_some(stream: Any) -> bytes:
    from libp2p.network.stream.exceptions import StreamEOF

    try:
        data: bytes = await stream.read(65536)
        return data
    except StreamEOF:
        return b""
