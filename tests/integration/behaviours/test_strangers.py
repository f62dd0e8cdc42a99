"""What a peer that is on no list may open on a host, what it is told, and that no punch is begun for it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from punchbridge.access.policy import NOBODY, OPEN, Access
from punchbridge.access.records import Records
from punchbridge.access.secret import Secret
from punchbridge.access.sources import Sources
from punchbridge.access.store import AccessFile
from punchbridge.addresses import is_public, is_relayed, with_peer
from punchbridge.behaviours.admission import show_invitation
from punchbridge.config import AccessLimits, Limits, PingLimits
from punchbridge.errors import LimitExceeded, NegotiationFailed, NotAllowed
from punchbridge.eventhub import EventHub
from punchbridge.events import AccessChanged, Event, PunchStarted
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


async def test_a_stranger_is_told_of_no_relay_at_a_private_address() -> None:
    """Not even one that came over it; whoever is let in is told."""
    async with open_relay() as relay, open_peer(access=NOBODY) as listener, open_peer() as dialer:
        circuit = await over_relay(relay, dialer, listener)
        with trio.fail_after(10):
            await circuit.identified.wait()
            assert circuit.identify is not None
            assert circuit.identify.listen == ()
            addr = with_peer(listener.host.swarm.listen_addrs()[0], listener.peer)
            direct = await dialer.host.swarm.dial(addr, fresh=True)
            await direct.identified.wait()
            assert direct.identify is not None
            assert direct.identify.listen == ()
            listener.host.swarm.gater.access = Access.of([dialer.peer])
            while not any(map(is_relayed, direct.identify.listen)):  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_what_a_stranger_is_refused_is_counted_with_its_id() -> None:
    async with open_host(config(NOBODY), EventHub()) as server, open_host(config(OPEN), EventHub()) as client:
        await server.swarm.handle(SERVICE, never, max_streams=1, max_per_peer=1, audience=server.swarm.gater.listed)
        await connected(client, server)
        (connection,) = client.swarm.connections()
        for protocol in (SERVICE, SERVICE, "/test/nobody-speaks-it/1.0.0"):
            with pytest.raises(NegotiationFailed):
                await connection.open_stream((protocol,))
        assert server.swarm.refusals.counts["not_allowed"] == 2  # the last one is unknown to everybody
        (source,) = [one for one in server.swarm.refusals.most(9) if one.reason == "not_allowed"]
        assert (source.prefix, source.peer) == ("127.0.0.1", str(client.swarm.peer))


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


async def test_who_is_denied_is_told_so_and_cut() -> None:
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
        assert connection.close_reason == "NOT_ALLOWED"
        assert not server.swarm.refusals.counts
        second = await client.dial(with_peer(server.swarm.listen_addrs()[0], server.swarm.peer))
        with trio.fail_after(10):
            with pytest.raises(NotAllowed, match="does not let this peer in"):
                await second.open_stream((PING,))
            await second.closed.wait()
        assert server.swarm.refusals.counts["denied"] == 1
        assert not server.swarm.connections()


async def test_a_stream_of_who_is_denied_ends_with_the_reason() -> None:
    me = Identity.generate()
    async with (
        open_host(config(OPEN), EventHub()) as server,
        open_host(HostConfig(me, (LOOPBACK,), allow_private=True), EventHub()) as client,
    ):
        await server.swarm.handle(SERVICE, never, max_streams=1, max_per_peer=1, audience=server.swarm.gater.listed)
        await connected(client, server)
        stream = await client.swarm.open_stream(server.swarm.peer, (SERVICE,))
        server.swarm.gater.access = Access.of((), [me.peer_id])
        with trio.fail_after(10), pytest.raises(NotAllowed):
            await stream.receive_some()


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


async def test_a_list_that_is_written_in_place_strikes_nobody_out(tmp_path: Path) -> None:
    path, peers = tmp_path / "members", [Identity.generate().peer_id for _ in range(3)]
    half, whole = f"{peers[0]}\n", f"{peers[0]}\n{peers[1]}\n"
    path.write_text(whole)
    limits = Limits(access=AccessLimits(follow=0.01))
    told: list[int] = []
    three = trio.Event()

    def note(event: Event) -> None:
        if isinstance(event, AccessChanged):
            told.append(event.allowed)
            if event.allowed == 3:
                three.set()

    hub = EventHub()
    hub.subscribe(note)
    sources = Sources(limits.access, allow_files=[path])
    async with open_host(HostConfig(Identity.generate(), access=sources, limits=limits), hub):
        for _ in range(100):  # on a machine that is busy, writing itself may take too long
            told.clear()
            began = time.monotonic()
            path.write_text(half)
            await trio.sleep(0.1)  # many looks at the file
            path.write_text(whole)
            if time.monotonic() - began < 0.3:
                break
            await trio.sleep(1.5)  # until it has been read as it is
        path.write_text(f"{whole}{peers[2]}\n")
        with trio.fail_after(20):
            await three.wait()
        assert told == [3]


class Counted(AccessFile):
    """An access file that counts how often it is read."""

    reads = 0

    def read(self, *, absent: bool = True) -> Records:
        self.reads += 1
        return super().read(absent=absent)


async def test_a_secret_that_lets_nobody_in_costs_no_reading_of_the_file(tmp_path: Path) -> None:
    file, secret = Counted(tmp_path / "key.access", AccessLimits()), Secret(bytes(16))
    file.invite(secret, now=time.time(), expires=None)
    os.utime(file.path, (time.time() - 3600,) * 2)  # else it may have changed since, within a tick of the clock
    sources = Sources(AccessLimits(), file=file)
    me = HostConfig(Identity.generate(), (LOOPBACK,), allow_private=True)
    async with (
        open_host(replace(me, identity=Identity.generate(), access=sources, access_file=file), EventHub()) as server,
        open_host(me, EventHub()) as client,
    ):
        connection = await client.dial(with_peer(server.swarm.listen_addrs()[0], server.swarm.peer))
        before = file.reads
        for number in range(1, 4):
            with pytest.raises(NotAllowed, match="knows no such invitation"):
                await show_invitation(connection, Secret(bytes([number]) * 16), 20)
        assert file.reads == before
        file.invite(Secret(bytes([9]) * 16), now=time.time(), expires=None)  # made just now, and not followed yet
        await show_invitation(connection, Secret(bytes([9]) * 16), 20)
        assert me.identity.peer_id in file.read().allow.peers


async def test_one_that_guesses_keeps_nobody_at_its_address_from_showing_an_invitation(tmp_path: Path) -> None:
    file, secret = AccessFile(tmp_path / "key.access", AccessLimits()), Secret(bytes(16))
    file.invite(secret, now=time.time(), expires=None)
    me = HostConfig(Identity.generate(), (LOOPBACK,), allow_private=True)
    serving = replace(config(NOBODY), access=Sources(AccessLimits(), file=file), access_file=file)
    async with (
        open_host(serving, EventHub()) as server,
        open_host(replace(me, identity=Identity.generate()), EventHub()) as guesser,
        open_host(me, EventHub()) as guest,
    ):
        addr = with_peer(server.swarm.listen_addrs()[0], server.swarm.peer)
        guessing = await guesser.dial(addr)
        for number in range(1, 1 + AccessLimits().invites):
            with pytest.raises(NotAllowed, match="knows no such invitation"):
                await show_invitation(guessing, Secret(bytes([number]) * 16), 20)
        for _ in range(2 * AccessLimits().invites_per_address):
            with pytest.raises(LimitExceeded, match="did not look at the invitation"):
                await show_invitation(guessing, Secret(bytes([99]) * 16), 20)
        await show_invitation(await guest.dial(addr), secret, 20)
        assert me.identity.peer_id in file.read().allow.peers


async def test_the_strangers_of_one_address_share_a_rate_but_for_who_has_an_invitation(tmp_path: Path) -> None:
    limits = AccessLimits(invites_per_address=2)
    file = AccessFile(tmp_path / "key.access", limits)
    secret = Secret(bytes(range(16)))
    file.invite(secret, now=time.time(), expires=None, uses=1, label="")
    serving = replace(config(NOBODY), access=Sources(limits, file=file), access_file=file, limits=Limits(access=limits))
    async with open_host(serving, EventHub()) as server:
        addr = with_peer(server.swarm.listen_addrs()[0], server.swarm.peer)
        for error in (NotAllowed, NotAllowed, LimitExceeded):
            async with open_host(config(OPEN), EventHub()) as guesser:
                with pytest.raises(error):
                    await show_invitation(await guesser.dial(addr), Secret(bytes([1]) * 16), 20)
        (refused,) = server.swarm.refusals.most(9)
        assert (refused.reason, refused.prefix, refused.times) == ("invitations", "127.0.0.1", 1)
        async with open_host(config(OPEN), EventHub()) as guest:
            await show_invitation(await guest.dial(addr), secret, 20)
        async with open_host(config(OPEN), EventHub()) as late:  # the invitation was for one
            with pytest.raises(LimitExceeded):
                await show_invitation(await late.dial(addr), secret, 20)
