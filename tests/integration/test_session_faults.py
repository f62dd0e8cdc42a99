"""What must not take more than one session, carrier or wait with it: refusals, races and faults, over real hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from relay_lab import network
from test_session import SERVICE, Route, config, echo, pair, read_exactly, until

from bridge.addresses import Multiaddr, is_relayed, with_peer
from bridge.behaviours.host import HostConfig
from bridge.eventhub import EventHub
from bridge.identity import Identity
from bridge.protocol.path import PathPolicy
from bridge.session import SessionStream
from bridge.session.host import SessionHost, open_session_host


async def said(stream: SessionStream, text: bytes) -> None:
    with trio.fail_after(10):
        await stream.send_all(text)
        assert await read_exactly(stream, len(text)) == text


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[SessionHost, SessionHost, Multiaddr, Multiaddr]]:
    """(dialler, acceptor, its circuit address, its direct address); nobody punches."""
    async with network() as net:
        relay = await net.relay()
        listen = (Multiaddr("/ip4/127.0.0.1/tcp/0"),)
        kept = HostConfig(
            Identity.generate(), listen=listen, relays=(relay.addr,), allow_private=True, autonat=False, punch=False
        )
        async with open_session_host(config(), EventHub()) as dialler, open_session_host(kept, EventHub()) as acceptor:
            acceptor.sessions.serve(SERVICE, echo)
            await until(lambda: any(is_relayed(addr) for addr in acceptor.swarm.announced()))
            peer = acceptor.swarm.peer
            circuit = with_peer(relay.addr.encapsulate("/p2p-circuit"), peer)
            yield dialler, acceptor, circuit, with_peer(acceptor.swarm.listen_addrs()[0], peer)


@pytest.mark.parametrize("policy", ["relay", "direct"])
async def test_a_path_that_is_required_is_dialled_again_while_one_of_the_other_kind_stands(policy: PathPolicy) -> None:
    async with relayed() as (dialler, acceptor, circuit, direct):
        mine, other = (circuit, direct) if policy == "relay" else (direct, circuit)
        connection = await dialler.swarm.dial(mine)
        stays = await dialler.swarm.dial(other)
        route = Route(acceptor.swarm.peer, mine)
        stream = await dialler.sessions.open(connection, SERVICE, route=route, policy=policy)
        await said(stream, b"on the path that is required")
        connection.abort("CUT")
        await said(stream, b"and there again")
        assert stream.path == policy
        assert not stays.closed.is_set()


async def test_a_dial_that_hangs_does_not_keep_a_session_from_a_connection_that_the_peer_makes() -> None:
    async with pair() as both:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        mute = with_peer(Multiaddr(f"/ip4/127.0.0.1/tcp/{port}"), both.peer)
        connection = await both.connect()
        route = Route(both.peer, mute)
        stream = await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any")
        await said(stream, b"before")
        connection.abort("CUT")
        with trio.fail_after(3):
            accepted = await listeners[0].accept()
            back = with_peer(both.dialler.swarm.listen_addrs()[0], both.dialler.swarm.peer)
            await until(lambda: not both.acceptor.swarm.connections())
            await both.acceptor.swarm.dial(back)
            await said(stream, b"after")
        await accepted.aclose()
        await listeners[0].aclose()
