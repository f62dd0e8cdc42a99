"""What a peer that is on no list may open on a host, what it is told, and that no punch is begun for it."""

from __future__ import annotations

import pytest
import trio

from punchbridge.access.policy import NOBODY, OPEN, Access
from punchbridge.addresses import is_public, is_relayed, with_peer
from punchbridge.config import Limits, PingLimits
from punchbridge.errors import NegotiationFailed
from punchbridge.eventhub import EventHub
from punchbridge.events import PunchStarted
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity
from punchbridge.session import SESSION_PROTOCOL
from punchbridge.transport.base import Connection
from punchbridge.wire.dcutr import PROTOCOL as DCUTR
from punchbridge.wire.identify import IDENTIFY, PUSH
from punchbridge.wire.invite import INVITE
from punchbridge.wire.ping import PING
from tests.support.punch_lab import open_peer, open_relay, over_relay
from tests.support.swarms import LOOPBACK

SERVICE = "/test/secret-service/1.0.0"


def config(access: Access, **more: object) -> HostConfig:
    return HostConfig(
        Identity.generate(),
        (LOOPBACK,),
        access=access,
        allow_private=True,
        autonat_server=True,
        **more,  # type: ignore[arg-type]
    )


async def connected(client: Host, server: Host) -> tuple[str, ...]:
    """Connects, and returns the protocols that the server has told."""
    connection = await client.dial(with_peer(server.swarm.listen_addrs()[0], server.swarm.peer))
    with trio.fail_after(10):
        await connection.identified.wait()
    assert connection.identify is not None
    return connection.identify.protocols


async def test_a_stranger_is_told_no_service_and_no_private_address() -> None:
    async with open_host(config(NOBODY), EventHub()) as server, open_host(config(OPEN), EventHub()) as client:
        await server.swarm.handle(SERVICE, never, max_streams=1, max_per_peer=1, audience=server.swarm.gater.listed)
        protocols = await connected(client, server)
        assert set(protocols) <= {IDENTIFY, PING, SESSION_PROTOCOL, INVITE}
        (connection,) = client.swarm.connections()
        assert connection.identify is not None
        assert all(is_public(addr) or is_relayed(addr) for addr in connection.identify.listen)
        for protocol in (SERVICE, DCUTR, PUSH, "/libp2p/autonat/2/dial-request"):
            with pytest.raises(NegotiationFailed):
                await connection.open_stream((protocol,))


async def test_who_is_listed_is_told_and_may() -> None:
    me = Identity.generate()
    server_config = config(Access.of([me.peer_id]))
    async with (
        open_host(server_config, EventHub()) as server,
        open_host(HostConfig(me, (LOOPBACK,), allow_private=True), EventHub()) as client,
    ):
        await server.swarm.handle(SERVICE, never, max_streams=1, max_per_peer=1, audience=server.swarm.gater.listed)
        protocols = await connected(client, server)
        assert {SERVICE, DCUTR, PUSH} <= set(protocols)


async def test_who_is_struck_out_loses_its_streams() -> None:
    me = Identity.generate()
    async with (
        open_host(config(Access.of([me.peer_id])), EventHub()) as server,
        open_host(HostConfig(me, (LOOPBACK,), allow_private=True), EventHub()) as client,
    ):
        await server.swarm.handle(SERVICE, never, max_streams=1, max_per_peer=1, audience=server.swarm.gater.listed)
        await connected(client, server)
        stream = await client.swarm.open_stream(server.swarm.peer, (SERVICE,))
        server.swarm.gater.access = NOBODY
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert client.swarm.connections()  # the connection stays, a stranger's one now


async def test_who_is_denied_is_cut() -> None:
    me = Identity.generate()
    async with (
        open_host(config(OPEN), EventHub()) as server,
        open_host(HostConfig(me, (LOOPBACK,), allow_private=True), EventHub()) as client,
    ):
        await connected(client, server)
        (connection,) = client.swarm.connections()
        server.swarm.gater.access = Access.of((), [me.peer_id])
        with trio.fail_after(10):
            await connection.closed.wait()
        assert not server.swarm.refusals.counts
        second = await client.dial(with_peer(server.swarm.listen_addrs()[0], server.swarm.peer))
        with trio.fail_after(10):
            await second.closed.wait()
        assert server.swarm.refusals.counts["denied"] == 1


async def test_no_punch_is_begun_for_a_stranger_and_one_is_once_it_is_let_in() -> None:
    async with open_relay() as relay, open_peer(access=NOBODY) as listener, open_peer() as dialer:
        circuit = await over_relay(relay, dialer, listener)
        with trio.fail_after(10):
            await circuit.identified.wait()
        assert not listener.puncher.watched(dialer.peer)
        assert not listener.record.of(PunchStarted)
        listener.host.swarm.gater.access = Access.of([dialer.peer])
        await listener.record.wait(PunchStarted)


async def test_a_stranger_has_one_ping_stream_and_a_low_rate() -> None:
    limits = Limits(ping=PingLimits(stranger_burst=2, stranger_every=0.4))
    async with (
        open_host(config(NOBODY, limits=limits), EventHub()) as server,
        open_host(config(OPEN), EventHub()) as client,
    ):
        await connected(client, server)
        connection = client.swarm.connections()[0]
        stream = await connection.open_stream((PING,))
        began = trio.current_time()
        for _ in range(4):
            await stream.send_all(bytes(32))
            assert await stream.receive_some(32)
        assert trio.current_time() - began >= 0.8
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await one_more(connection)


async def one_more(connection: Connection) -> None:
    stream = await connection.open_stream((PING,))
    await stream.receive_some(32)


async def never(stream: object) -> None:
    await trio.sleep_forever()
