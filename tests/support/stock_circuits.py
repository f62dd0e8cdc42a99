"""A stock py-libp2p host with its circuit service, as relay, listener or dialer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from libp2p.network.stream.exceptions import StreamError
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from punchbridge.addresses import parse, with_peer, without_peer
from tests.support.relay_lab import ECHO
from tests.support.stock_host import make_host, ours


@dataclass
class Stock:
    """A py-libp2p host with its circuit service. `addr` ends in /p2p/ID."""

    host: Any
    transport: CircuitV2Transport
    addr: Multiaddr


@asynccontextmanager
async def stock(*, hop: bool = False, roles: RelayRole = RelayRole.STOP) -> AsyncIterator[Stock]:
    host = make_host()
    limits = RelayLimits(duration=60, data=1 << 20, max_circuit_conns=8, max_reservations=8)
    protocol = CircuitV2Protocol(host, limits=limits, allow_hop=hop)
    transport = CircuitV2Transport(host, protocol, RelayConfig(roles=roles, limits=limits))

    async def echo_handler(stream: Any) -> None:
        try:
            while data := await stream.read(65536):
                await stream.write(data)
        except StreamError:
            pass
        await stream.close()

    host.set_stream_handler(ECHO, echo_handler)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]), background_trio_service(protocol):
        await protocol.event_started.wait()
        addr = next(one for one in host.get_addrs() if "127.0.0.1" in str(one))
        yield Stock(host, transport, with_peer(parse(str(without_peer(addr))), ours(host.get_id())))
        for peer in tuple(host.get_network().connections):
            await host.disconnect(peer)
