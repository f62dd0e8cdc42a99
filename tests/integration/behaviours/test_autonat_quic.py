"""AutoNAT v2 and observed addresses over QUIC beside TCP, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from punchbridge.access.policy import OPEN
from punchbridge.addresses import Endpoint, Multiaddr, endpoint_of, parse, with_peer, with_port
from punchbridge.config import AutonatLimits, Limits, Punch, QuicLimits
from punchbridge.eventhub import EventHub
from punchbridge.events import AutonatResult, ConnectionMoved, ObservedAddress
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire import autonat
from punchbridge.wire.autonat import Answer
from tests.support.built import NOT_BUILT
from tests.support.rebinding import Rebinding
from tests.support.swarms import LOOPBACK, UDP, Recorder

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)


@asynccontextmanager
async def open_one(
    *listen: Multiaddr, client: bool = False, server: bool = False
) -> AsyncIterator[tuple[Host, Recorder]]:
    hub = EventHub()
    record = Recorder(hub)
    config = HostConfig(
        Identity.generate(),
        listen or (LOOPBACK, UDP),
        access=OPEN,
        allow_private=True,
        punch=Punch(enabled=False),
        autonat=client,
        autonat_server=server,
        limits=Limits(autonat=AutonatLimits(boot_delay=0.05), quic=QuicLimits(moved_after=0.1)),
    )
    async with open_host(config, hub) as host:
        yield host, record


def addrs_of(host: Host) -> list[Multiaddr]:
    return [with_peer(addr, host.swarm.peer) for addr in host.swarm.listen_addrs()]


async def test_addresses_of_both_transports_are_found_public() -> None:
    async with open_one(server=True) as (server, _), open_one(client=True) as (client, record):
        await client.swarm.dial(addrs_of(server)[0])
        await record.wait(AutonatResult, 2)
        assert {one.addr for one in record.of(AutonatResult)} == set(map(str, client.swarm.listen_addrs()))
        assert client.autonat is not None
        assert client.autonat.reachability_by_transport == {"tcp": "public", "quic": "public"}


async def test_one_transport_may_be_reached_while_the_other_one_is_not() -> None:
    """The server cannot listen with QUIC here, so it dials back over TCP alone and refuses the rest."""
    async with open_one(LOOPBACK, server=True) as (server, _), open_one(client=True) as (client, record):
        await client.swarm.dial(addrs_of(server)[0])
        await record.wait(AutonatResult)
        assert client.autonat is not None
        assert client.autonat.reachability_by_transport == {"tcp": "public", "quic": "unknown"}


async def test_each_dial_back_over_quic_comes_from_a_port_of_its_own() -> None:
    """A8: neither from the listening socket, nor from one that the client's NAT has seen before."""
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        seen: list[Multiaddr] = []

        async def dialled_back(stream: Stream) -> None:
            assert stream.connection.transport == "quic"
            assert stream.connection.peer != server.swarm.peer
            seen.append(stream.connection.remote)
            autonat.decode_dial_back(await read_message(stream, 8192))
            await write_message(stream, autonat.encode_dial_back_response())
            await stream.aclose()

        await client.swarm.handle(autonat.DIAL_BACK, dialled_back, max_streams=4, max_per_peer=4)
        connection = await client.swarm.dial(addrs_of(server)[1])
        for _ in range(2):
            stream = await client.swarm.open_stream(connection, [autonat.DIAL_REQUEST])
            await write_message(stream, autonat.encode_request([client.swarm.listen_addrs()[1]], 7))
            with trio.fail_after(20):
                answer = autonat.decode_for_client(await read_message(stream, 8192))
            assert answer == Answer("OK", 0, "OK")
        assert len({*seen, *server.swarm.listen_addrs()}) == 4


async def test_a_peer_that_a_nat_has_moved_is_told_where_it_is_seen() -> None:
    """It cannot know itself, and its next punch needs the address that holds now."""
    async with open_one() as (a, there), open_one() as (b, record), trio.open_nursery() as nursery:
        _, udp = a.swarm.listen_addrs()
        place = endpoint_of(udp)
        assert place is not None
        nat = Rebinding((place.host, place.port))
        nursery.start_soon(nat.run)
        connection = await b.swarm.dial(with_port(UDP, nat.port), expected=a.swarm.peer)
        first = await record.wait(ObservedAddress)
        assert endpoint_of(parse(first.addr)) == Endpoint("ip4", *nat.outside, "udp")
        with trio.fail_after(20):
            await connection.identified.wait()
        nat.rebind()
        await connection.ping()
        await there.wait(ConnectionMoved)
        second = await record.wait(ObservedAddress, 2)
        assert endpoint_of(parse(second.addr)) == Endpoint("ip4", *nat.outside, "udp")
        assert b.swarm.observed.addresses()[0] == parse(second.addr)
        nursery.cancel_scope.cancel()


async def test_observed_addresses_are_kept_apart_by_transport() -> None:
    """A NAT maps TCP and UDP apart, so the end of one connection says nothing about the other mapping."""
    async with open_one() as (a, _), open_one() as (b, record):
        tcp, udp = [await b.swarm.dial(addr, fresh=True) for addr in addrs_of(a)]
        for number in (1, 2):
            await record.wait(ObservedAddress, number)
        listen = b.swarm.listen_addrs()
        assert {parse(one.addr) for one in record.of(ObservedAddress)} == set(listen)
        assert b.swarm.observed.mapping(4, "tcp") == b.swarm.observed.mapping(4, "udp") == "none"
        await b.swarm.close(tcp)
        fresh = [one.observed for one in b.swarm.observed.current() if one.stale_since is None]
        assert fresh == [endpoint_of(listen[1])]
        await b.swarm.close(udp)
        assert all(one.stale_since is not None for one in b.swarm.observed.current())
