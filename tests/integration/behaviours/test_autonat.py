"""AutoNAT v2 between real hosts on loopback: the dial-back, its nonce, dial data, and who is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from punchbridge.access.policy import OPEN
from punchbridge.addresses import Multiaddr, parse, with_peer
from punchbridge.api.trio import open_trio
from punchbridge.config import AutonatLimits, Limits, Punch
from punchbridge.errors import NegotiationFailed, StreamReset
from punchbridge.eventhub import EventHub
from punchbridge.events import AutonatResult
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire import autonat
from punchbridge.wire.autonat import Answer, DataDue, Request
from tests.support.swarms import LOOPBACK, Recorder

OLD_PLACE = parse("/ip4/198.51.100.7/tcp/4001")
"""An address that others reached the client at, in another network."""


@asynccontextmanager
async def open_one(
    *,
    client: bool = False,
    server: bool = False,
    allow_private: bool = True,
    listen: Multiaddr = LOOPBACK,
    **limits: float,
) -> AsyncIterator[tuple[Host, Recorder]]:
    hub = EventHub()
    record = Recorder(hub)
    config = HostConfig(
        Identity.generate(),
        (listen,),
        access=OPEN,
        allow_private=allow_private,
        punch=Punch(enabled=False),
        autonat=client,
        autonat_server=server,
        limits=Limits(autonat=AutonatLimits(**{"boot_delay": 0.05, **limits})),  # type: ignore[arg-type]
    )
    async with open_host(config, hub) as host:
        yield host, record


def addr_of(host: Host) -> Multiaddr:
    return with_peer(host.swarm.listen_addrs()[0], host.swarm.peer)


async def ask(stream: Stream, addrs: list[Multiaddr], nonce: int = 7) -> Answer | DataDue:
    await write_message(stream, autonat.encode_request(addrs, nonce))
    return autonat.decode_for_client(await read_message(stream, 8192))


async def open_request(client: Host, server: Host) -> Stream:
    connection = await client.swarm.dial(addr_of(server))
    return await client.swarm.open_stream(connection, [autonat.DIAL_REQUEST])


async def test_a_reachable_address_is_found_public() -> None:
    async with open_one(server=True) as (server, _), open_one(client=True) as (client, record):
        await client.swarm.dial(addr_of(server))
        found = await record.wait(AutonatResult)
        assert found.reachability == "public"
        assert (found.status, found.confirmations) == ("OK", 1)
        assert found.server == server.swarm.peer.to_base58()
        assert client.autonat is not None
        assert client.autonat.reachability == "public"
        assert client.autonat.reachability_of(parse(found.addr)) == ("public", 1)
        assert parse(found.addr) in client.swarm.announced()


async def test_what_was_learned_in_another_network_is_forgotten() -> None:
    async with open_one(server=True) as (server, _), open_one(client=True) as (client, record):
        connection = await client.swarm.dial(addr_of(server))
        found = parse((await record.wait(AutonatResult)).addr)
        await connection.identified.wait()
        client.swarm.set_external(OLD_PLACE, True)
        assert client.swarm.observed.current()
        assert client.autonat is not None
        asked, before = len(record.of(AutonatResult)), client.swarm.announcements.revision.number

        client.network_changed()
        assert client.swarm.observed.current() == ()
        assert client.autonat.reachability_of(found) == ("unknown", 0)
        assert OLD_PLACE not in client.swarm.announced()
        assert client.swarm.announcements.revision.number > before
        # The server is asked again at once, although it was asked a moment ago.
        await record.wait(AutonatResult, asked + 1)
        assert client.autonat.reachability_of(found) == ("public", 1)
        assert not connection.closed.is_set()


async def test_the_verdict_is_a_field_of_status() -> None:
    limits = Limits(autonat=AutonatLimits(boot_delay=0.05))
    async with (
        open_one(server=True) as (server, _),
        open_trio(listen=[LOOPBACK], allow_private=True, limits=limits) as b,
    ):
        assert b.status().reachability == "unknown"
        record = Recorder(b.host.swarm.events)
        await b.connect(addr_of(server))
        await record.wait(AutonatResult)
        status = b.status()
        assert status.reachability == "public"
        assert (status.peer_id, status.addrs, status.relays) == (b.peer_id, b.addrs, ())
        assert [one.peer_id for one in status.connections] == [server.swarm.peer.to_base58()]


async def test_the_dial_back_comes_from_another_port_and_another_identity() -> None:
    """A8: not from the port, and not under the identity, that the client has dialled."""
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        seen: list[tuple[Multiaddr, bytes, int]] = []

        async def dialled_back(stream: Stream) -> None:
            connection = stream.connection
            seen.append(
                (
                    connection.remote,
                    connection.peer.to_bytes(),
                    autonat.decode_dial_back(await read_message(stream, 8192)),
                )
            )
            await write_message(stream, autonat.encode_dial_back_response())
            await stream.aclose()

        await client.swarm.handle(autonat.DIAL_BACK, dialled_back, max_streams=4, max_per_peer=4)
        stream = await open_request(client, server)
        with trio.fail_after(10):
            assert await ask(stream, [client.swarm.listen_addrs()[0]], 99) == Answer("OK", 0, "OK")
            assert await stream.receive_some() == b"", "A6: the server closes after its response"
        [(remote, peer, nonce)] = seen
        assert nonce == 99
        assert remote not in server.swarm.listen_addrs()
        assert peer != server.swarm.peer.to_bytes()
        assert server.swarm.connections() != ()


@pytest.mark.parametrize("answered", [True, False])
async def test_a_reset_behind_the_nonce_does_not_spoil_the_answer(answered: bool) -> None:
    """rust-libp2p drops its stream right behind its answer; go takes any end of the stream for the answer."""
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        nonces: list[int] = []

        async def dialled_back(stream: Stream) -> None:
            nonces.append(autonat.decode_dial_back(await read_message(stream, 8192)))
            if answered:
                await write_message(stream, autonat.encode_dial_back_response())
            stream.reset()

        await client.swarm.handle(autonat.DIAL_BACK, dialled_back, max_streams=4, max_per_peer=4)
        stream = await open_request(client, server)
        with trio.fail_after(10):
            assert await ask(stream, [client.swarm.listen_addrs()[0]], 99) == Answer("OK", 0, "OK")
        assert nonces == [99]


async def test_a_server_that_drops_the_request_late_has_dialled_in_vain() -> None:
    """rust-libp2p's server gives no answer when its dial takes as long as the request may: behind most NATs. Where the
    address is not the one it sees, it asks for dial data first."""
    async with open_one() as (server, _), open_one(client=True, silence=0.0) as (client, record):

        async def drop(stream: Stream) -> None:
            request = autonat.decode_for_server(await read_message(stream, 8192))
            assert isinstance(request, Request)
            if request.addrs != tuple(addr.to_bytes() for addr in client.swarm.listen_addrs()):
                await write_message(stream, autonat.encode_data_due(DataDue(0, 30_000)))
                await stream.receive_some()  # a reset
            stream.reset()

        await server.swarm.handle(autonat.DIAL_REQUEST, drop, max_streams=4, max_per_peer=4)
        await client.swarm.dial(addr_of(server))
        found = await record.wait(AutonatResult)
        assert (found.reachability, found.status, found.confirmations) == ("private", "NO_ANSWER", 1)
        assert client.autonat is not None
        assert client.autonat.reachability == "private"


async def test_a_server_that_drops_every_request_says_nothing() -> None:
    """An overloaded one lets requests die too, but then also those where there is nothing to dial."""
    async with open_one() as (server, _), open_one(client=True, retry=0.05, silence=0.0) as (client, record):
        requests = 0

        async def recover_at_last(stream: Stream) -> None:
            nonlocal requests
            await read_message(stream, 8192)
            requests += 1
            if requests > 4:
                await write_message(stream, autonat.encode_answer(Answer("OK", 0, "E_DIAL_ERROR")))
                await stream.aclose()
            stream.reset()

        await server.swarm.handle(autonat.DIAL_REQUEST, recover_at_last, max_streams=4, max_per_peer=4)
        await client.swarm.dial(addr_of(server))
        found = await record.wait(AutonatResult)
        assert (found.status, requests) == ("E_DIAL_ERROR", 5)


async def test_an_address_that_is_no_longer_ours_is_neither_announced_nor_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again: dict[str, Any] = {"refresh": 0.05, "retry": 0.05}
    async with open_one(server=True) as (server, _), open_one(client=True, **again) as (client, record):
        assert client.autonat is not None
        await client.swarm.dial(addr_of(server))
        found = await record.wait(AutonatResult)
        assert found.reachability == "public"
        # The network changed: another address, at which nobody answers.
        elsewhere = parse("/ip4/127.0.0.1/tcp/1")
        monkeypatch.setattr(client.autonat, "_addresses", lambda _server: (elsewhere,))
        with trio.fail_after(10):
            while client.autonat.reachability != "private":
                await record.wait(AutonatResult, len(record.of(AutonatResult)) + 1)
        assert client.autonat.reachability_of(parse(found.addr)) == ("unknown", 0)
        assert client.swarm.announcements.addresses(()) == ()


async def test_a_server_that_drops_the_request_at_once_says_nothing() -> None:
    async with open_one() as (server, _), open_one(client=True, retry=0.05) as (client, record):
        requests = 0

        async def answer_the_second(stream: Stream) -> None:
            nonlocal requests
            await read_message(stream, 8192)
            requests += 1
            if requests > 1:
                await write_message(stream, autonat.encode_answer(Answer("OK", 0, "E_DIAL_ERROR")))
                await stream.aclose()
            stream.reset()

        await server.swarm.handle(autonat.DIAL_REQUEST, answer_the_second, max_streams=4, max_per_peer=4)
        await client.swarm.dial(addr_of(server))
        found = await record.wait(AutonatResult)
        assert (found.status, found.confirmations, requests) == ("E_DIAL_ERROR", 1, 2)


async def test_a_closed_port_and_a_refused_nonce_are_told_apart() -> None:
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        closed = parse("/ip4/127.0.0.1/tcp/1")
        with trio.fail_after(10):
            assert await ask(await open_request(client, server), [closed]) == Answer("OK", 0, "E_DIAL_ERROR")
            mine = client.swarm.listen_addrs()[0]  # accepts the connection, does not know the dial-back protocol
            assert await ask(await open_request(client, server), [mine]) == Answer("OK", 0, "E_DIAL_BACK_ERROR")


async def test_nothing_private_is_dialled_without_leave() -> None:
    async with open_one(server=True, allow_private=False) as (server, _), open_one() as (client, _):
        with trio.fail_after(10):
            answer = await ask(await open_request(client, server), [client.swarm.listen_addrs()[0]])
        assert answer == Answer("E_DIAL_REFUSED")


async def test_another_ip_costs_dial_data_first() -> None:
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        stream = await open_request(client, server)
        with trio.fail_after(10):
            due = await ask(stream, [parse("/ip4/127.0.0.2/tcp/1")])
            assert isinstance(due, DataDue)
            assert 30_000 <= due.size <= 100_000
            left = due.size
            while left > 0:
                await write_message(stream, autonat.encode_data(left))
                left -= 4096
            answer = autonat.decode_for_client(await read_message(stream, 8192))
        assert answer == Answer("OK", 0, "E_DIAL_ERROR")


async def test_dial_data_without_data_and_a_wrong_first_message_reset_the_stream() -> None:
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        stream = await open_request(client, server)
        with trio.fail_after(10):
            assert isinstance(await ask(stream, [parse("/ip4/127.0.0.2/tcp/1")]), DataDue)
            await write_message(stream, autonat.encode_data(0))
            with pytest.raises(StreamReset):
                await read_message(stream, 8192)
            stream = await open_request(client, server)
            await write_message(stream, autonat.encode_data(4096))
            with pytest.raises(StreamReset):
                await read_message(stream, 8192)


async def test_a_nonce_nobody_asked_for_is_reset() -> None:
    async with open_one() as (stranger, _), open_one(client=True) as (client, record):
        connection = await stranger.swarm.dial(addr_of(client))
        stream = await stranger.swarm.open_stream(connection, [autonat.DIAL_BACK])
        with trio.fail_after(10):
            await write_message(stream, autonat.encode_dial_back(1234))
            with pytest.raises(StreamReset):
                await read_message(stream, 8192)
        assert record.of(AutonatResult) == []


async def test_a_host_that_is_no_server_offers_none() -> None:
    async with open_one() as (plain, _), open_one() as (client, _):
        connection = await client.swarm.dial(addr_of(plain))
        with trio.fail_after(10), pytest.raises(NegotiationFailed):
            await client.swarm.open_stream(connection, [autonat.DIAL_REQUEST])


async def test_requests_beyond_the_quota_are_rejected() -> None:
    async with open_one(server=True) as (server, _), open_one() as (client, _):
        answers = []
        with trio.fail_after(20):
            for _ in range(13):
                answers.append(await ask(await open_request(client, server), [parse("/ip4/10.0.0.1/udp/1")]))
        assert answers[:12] == [Answer("E_DIAL_REFUSED")] * 12
        assert answers[12] == Answer("E_REQUEST_REJECTED")
