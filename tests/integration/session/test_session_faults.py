"""What must not take more than one session, carrier or wait with it: refusals, races and faults, over real hosts."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from punchbridge.access.policy import OPEN
from punchbridge.addresses import Multiaddr, is_relayed, with_peer
from punchbridge.config import Limits, PathLimits, Punch, SessionLimits
from punchbridge.errors import LimitExceeded, NegotiationFailed, StreamReset
from punchbridge.eventhub import EventHub
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity
from punchbridge.reach.path import PathPolicy
from punchbridge.session import SESSION_PROTOCOL, SessionStream
from punchbridge.session.around import Around
from punchbridge.session.keeper import SessionKeeper
from punchbridge.session.service import SessionService
from punchbridge.session.silence import SilenceCheck
from punchbridge.sessions import Session
from punchbridge.sessions.frames import Attach, Kind, SessionRefusal, refuse
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.muxed.connection import MuxedConnection as Muxed
from tests.support.relay_lab import network
from tests.support.session_lab import SERVICE, Route, attach, config, echo, pair, read_exactly, until


async def said(stream: SessionStream, text: bytes) -> None:
    with trio.fail_after(10):
        await stream.send_all(text)
        assert await read_exactly(stream, len(text)) == text


@asynccontextmanager
async def relayed(
    *, capped: bool = False, limits: Limits | None = None
) -> AsyncIterator[tuple[Host, Host, Multiaddr, Multiaddr]]:
    """(dialler, acceptor, its circuit address, its direct address); nobody punches. `capped`: as stock relays are;
    `limits`: of the dialler."""
    async with network() as net:
        relay = await (net.relay() if capped else net.relay(circuit_seconds=0, circuit_bytes=0))
        listen = (Multiaddr("/ip4/127.0.0.1/tcp/0"),)
        kept = HostConfig(
            Identity.generate(),
            listen=listen,
            relays=(relay.addr,),
            access=OPEN,
            allow_private=True,
            autonat=False,
            punch=Punch(enabled=False),
        )
        async with open_host(config(limits), EventHub()) as dialler, open_host(kept, EventHub()) as acceptor:
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


@pytest.mark.parametrize(
    ("generation", "received", "refusal"), [(0, 0, SessionRefusal.STALE_GENERATION), (1, 9, SessionRefusal.BAD_OFFSET)]
)
async def test_first_attach_that_is_refused_opens_no_session(
    generation: int, received: int, refusal: SessionRefusal
) -> None:
    async with pair() as both:
        called: list[SessionStream] = []

        async def handler(stream: SessionStream) -> None:
            called.append(stream)
            await stream.receive_some()

        both.acceptor.sessions.serve("/test/called", handler)
        wrong = Attach(os.urandom(16), generation, received, 1 << 20, True, 0, "/test/called")
        kind, value, _ = await attach(both.dialler, both, wrong)
        assert (kind, value) == (Kind.REFUSED, refusal)
        await trio.testing.wait_all_tasks_blocked()
        assert both.acceptor.sessions.count == 0
        assert not called


async def test_a_fault_in_one_session_s_keeper_ends_that_session_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as both:
        stays, falls = await both.open(), await both.open()
        await said(stays, b"both")
        await said(falls, b"both")

        def faulty(keeper: SessionKeeper, before: object = SessionKeeper._step) -> object:
            if keeper._session is falls.live:
                raise ZeroDivisionError("a defect of ours")
            assert callable(before)
            return before(keeper)

        monkeypatch.setattr(SessionKeeper, "_step", faulty)
        for connection in both.dialler.swarm.connections(both.peer):
            connection.abort("CUT")
        with trio.fail_after(10), pytest.raises(StreamReset):
            await falls.receive_some()
        await said(stays, b"and this one goes on")
        assert both.dialler.sessions.opened == (stays.live,)
        assert "ZeroDivisionError" in caplog.text


async def test_a_session_that_ends_while_a_stream_is_opened_for_it_takes_no_carrier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair() as both:
        stream, target = await both.open(), await both.connect()
        await said(stream, b"begin")
        plain = target.open_stream

        async def late(protocols: Sequence[str], *, lazy: bool) -> Stream:
            opened = await plain(protocols, lazy=lazy)
            stream.abort()
            return opened

        monkeypatch.setattr(target, "open_stream", late)
        with trio.fail_after(5):
            assert not await both.dialler.sessions.move(stream.live, target, "TRIED")
        assert target.streams == 0
        assert all(one.connection is not target for one in stream.live.carriers.values())


async def test_many_moves_at_once_keep_to_the_bound_of_carriers(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, most = Session.attach, 0

    def noting(machine: Session, now: float) -> int:
        nonlocal most
        generation = plain(machine, now)
        most = max(most, len(machine.carriers))
        return generation

    monkeypatch.setattr(Session, "attach", noting)
    carriers = 3
    async with pair(Limits(sessions=SessionLimits(carriers=carriers))) as both:
        stream = await both.open()
        await said(stream, b"begin")
        targets = [await both.connect() for _ in range(2 * carriers)]
        outcomes: list[bool] = []

        async def move(to: Connection) -> None:
            outcomes.append(await both.dialler.sessions.move(stream.live, to, "TRIED"))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for target in targets:
                    nursery.start_soon(move, target)
        assert True in outcomes
        assert most == carriers
        await said(stream, b"after all of them")
        await until(lambda: len(stream.live.machine.carriers) == 1)


async def test_peer_that_refuses_and_keeps_the_stream_open_is_not_waited_for() -> None:
    async with pair() as both:
        await both.acceptor.swarm.unhandle(SESSION_PROTOCOL)

        async def mute(stream: Stream) -> None:
            await stream.receive_some()
            await stream.send_all(refuse(SessionRefusal.STALE_GENERATION, "no"))
            await trio.sleep_forever()

        await both.acceptor.swarm.handle(SESSION_PROTOCOL, mute, max_streams=9, max_per_peer=9)
        with trio.fail_after(3), pytest.raises(NegotiationFailed):
            await both.open()
        assert both.dialler.sessions.count == 0


@pytest.mark.parametrize("waiting", ["send_all", "wait_send_all_might_not_block"])
async def test_closing_wakes_the_task_that_waits_to_send(waiting: str) -> None:
    async with pair() as both:

        async def deaf(_stream: SessionStream) -> None:
            await trio.sleep_forever()

        both.acceptor.sessions.serve("/test/deaf", deaf)
        stream = await both.open("/test/deaf")
        with trio.move_on_after(0.5):
            while True:
                await stream.send_all(bytes(1 << 16))
        woken = trio.Event()

        async def send() -> None:
            try:
                if waiting == "send_all":
                    await stream.send_all(bytes(1 << 25))
                else:
                    await stream.wait_send_all_might_not_block()
            except trio.ClosedResourceError:
                pass
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(lambda: bool(stream.live.writing))
            nursery.start_soon(stream.aclose)
            with trio.fail_after(1):
                await woken.wait()
            stream.abort()


async def test_a_direct_path_that_did_not_answer_once_is_measured_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = PathLimits(measure_timeout=0.1)
    monkeypatch.setattr(Muxed, "rtt", property(lambda _: None))  # nothing is known of either path
    asked: list[Muxed] = []
    plain = Muxed.ping

    async def ping(connection: Muxed) -> float:
        asked.append(connection)
        if connection.path == "direct" and sum(one is connection for one in asked) == 1:
            await trio.sleep_forever()
        return await plain(connection)

    async with relayed(limits=Limits(paths=paths)) as (dialler, acceptor, circuit, direct):
        route = Route(acceptor.swarm.peer, circuit)
        stream = await dialler.sessions.open(await dialler.swarm.dial(circuit), SERVICE, route=route, policy="any")
        await said(stream, b"relayed")
        monkeypatch.setattr(Muxed, "ping", ping)
        await dialler.swarm.dial(direct)
        await until(lambda: stream.path == "direct", paths.retry_most + 3)


async def test_a_connection_is_not_closed_because_this_process_was_held_up() -> None:
    async with pair() as both:
        verify = SilenceCheck(both.dialler.swarm, Limits(sessions=SessionLimits(silence=0.1))).verify
        connection = await both.connect()
        await until(lambda: connection.rtt_least is not None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verify, connection)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(verify, connection)
            await trio.lowlevel.checkpoint()
            time.sleep(1.0)  # noqa: ASYNC251 - the whole process stands still
        assert not connection.closed.is_set()


async def test_a_carrier_that_comes_after_the_sessions_have_stopped_is_no_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        open_host(config(), EventHub()) as dialler,
        open_host(replace(config(), sessions=False), EventHub()) as stopping,
    ):
        service = SessionService(Around(stopping.swarm))
        service.serve(SERVICE, echo)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            nursery.cancel_scope.cancel()
        peer = stopping.swarm.peer
        connection = await dialler.swarm.dial(with_peer(stopping.swarm.listen_addrs()[0], peer))
        with pytest.raises((StreamReset, NegotiationFailed)):
            await dialler.sessions.open(connection, SERVICE, route=Route(peer, None), policy="any")
        assert "defect" not in caplog.text


async def test_circuit_is_given_back_once_the_direct_path_carries_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, refused = Swarm.close, 0

    async def busy(swarm: Swarm, target: Connection, reason: str) -> None:
        nonlocal refused
        if reason == "RELEASED" and not refused:
            refused += 1
            raise LimitExceeded("too many commands are in progress")
        await plain(swarm, target, reason)

    monkeypatch.setattr(Swarm, "close", busy)
    limits = Limits(paths=PathLimits(release_after=0.3))
    async with relayed(limits=limits) as (dialler, acceptor, circuit, direct):
        relayed_one = await dialler.swarm.dial(circuit)
        route = Route(acceptor.swarm.peer, circuit)
        stream = await dialler.sessions.open(relayed_one, SERVICE, route=route, policy="any")
        await said(stream, b"relayed")
        await dialler.swarm.dial(direct)
        with trio.fail_after(10):
            await relayed_one.closed.wait()
        assert (relayed_one.close_reason, refused) == ("RELEASED", 1)
        assert stream.path == "direct"
        await said(stream, b"direct")


async def test_more_than_a_circuit_carries_arrives_over_several() -> None:
    size = 3 * 128 * 1024
    async with relayed(capped=True) as (dialler, acceptor, circuit, _):
        route = Route(acceptor.swarm.peer, circuit)
        stream = await dialler.sessions.open(await dialler.swarm.dial(circuit), SERVICE, route=route, policy="relay")
        moved: list[str] = []
        stream.subscribe(lambda event: moved.append(event.reason))  # type: ignore[attr-defined]
        data = os.urandom(size)
        got = bytearray()

        async def read() -> None:
            while len(got) < size:
                got.extend(await stream.receive_some())

        with trio.fail_after(25):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await stream.send_all(data)
        assert bytes(got) == data
        assert "RELAY_CAP" in moved
