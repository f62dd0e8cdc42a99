"""Identify and ping against a stock py-libp2p host, both roles."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.host.ping import PingService as StockPing
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.peer.peerinfo import PeerInfo
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

from punchbridge.access.policy import OPEN
from punchbridge.addresses import with_peer
from punchbridge.config import Punch
from punchbridge.eventhub import EventHub
from punchbridge.events import ConnectionOpened, Identified
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity
from punchbridge.transport.base import Connection
from punchbridge.wire.identify import IDENTIFY
from punchbridge.wire.ping import PING
from tests.support.stock_host import stock_host, theirs
from tests.support.swarms import LOOPBACK, Recorder


def config() -> HostConfig:
    return HostConfig(
        Identity.generate(),
        (LOOPBACK,),
        agent="party/1",
        access=OPEN,
        allow_private=True,
        punch=Punch(enabled=False),
        autonat=False,
    )


async def identified(connection: Connection) -> None:
    with trio.fail_after(10):
        await connection.identified.wait()


async def test_we_dial_a_stock_host_and_both_learn_of_each_other() -> None:
    hub = EventHub()
    record = Recorder(hub)
    async with stock_host() as stock, open_host(config(), hub) as host:
        connection = await host.dial(with_peer(stock.addr, stock.peer))
        await identified(connection)
        info = connection.identify
        assert info is not None
        assert "py-libp2p" in info.agent
        assert {IDENTIFY, PING} <= set(info.protocols)
        assert stock.addr in [Multiaddr(str(addr).partition("/p2p/")[0]) for addr in info.listen]
        assert info.observed == connection.local
        assert (await record.wait(Identified)).observed == str(connection.local)
        trips = [rtt async for rtt in host.ping.ping(connection, count=2, interval=0)]
        assert len(trips) == 2


async def dial_from(stock: Any, host: Host) -> None:
    addr = Multiaddr(str(host.swarm.listen_addrs()[0]))
    with trio.fail_after(15):
        await stock.host.connect(PeerInfo(theirs(host.swarm.peer), [addr]))


async def test_a_stock_host_dials_us_identifies_us_and_pings_us() -> None:
    hub = EventHub()
    record = Recorder(hub)
    async with stock_host() as stock, open_host(config(), hub) as host:
        await dial_from(stock, host)
        event = await record.wait(ConnectionOpened)
        connection = host.swarm.connection(event.connection)
        assert connection is not None
        assert (connection.role, connection.peer) == ("responder", stock.peer)
        await identified(connection)
        assert connection.identify is not None
        assert "py-libp2p" in connection.identify.agent
        assert connection.identify.observed == connection.local
        stream = await stock.host.new_stream(theirs(host.swarm.peer), [IDENTIFY])
        with trio.fail_after(10):
            raw = await read_length_prefixed_protobuf(stream, use_varint_format=True)
            told = parse_identify_response(raw)
        assert told.agent_version == "party/1"
        assert PING in told.protocols
        assert Multiaddr(bytes(told.observed_addr)) == connection.remote
        with trio.fail_after(10):
            microseconds = await StockPing(stock.host).ping(theirs(host.swarm.peer), 2)
        assert len(microseconds) == 2
        assert all(value >= 0 for value in microseconds)
