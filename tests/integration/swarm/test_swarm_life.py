"""A swarm's life over loopback: handlers, limits, events, adopting links, stopping; nothing is left behind."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable
from functools import partial
from typing import Any

import pytest
import trio

from punchbridge.addresses import is_relayed, parse
from punchbridge.config import Limits, MuxedLimits
from punchbridge.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    DialTimeout,
    LimitExceeded,
    ProtocolViolation,
    StreamReset,
    SwarmStopped,
    Unreachable,
    WrongPeer,
)
from punchbridge.eventhub import EventHub
from punchbridge.events import ConnectionClosed, ConnectionOpened, Event
from punchbridge.identity import Identity, PeerId, peer_text
from punchbridge.swarm.swarm import Swarm, SwarmConfig, open_swarm
from punchbridge.transport.base import Stream
from punchbridge.transport.link import Link
from punchbridge.transport.muxed import upgrade as muxed
from tests.support.pairs import tcp_pair
from tests.support.swarms import ECHO, adopt, echo, open_descriptors, open_node

STRANGER = Identity.generate().peer_id
OTHER = "/test/other/1"


async def round_trip(stream: Stream) -> bytes:
    with trio.fail_after(5):
        await stream.send_all(b"x")
        return await stream.receive_some()


async def open_and_use(swarm: Swarm, peer: PeerId) -> bytes:
    return await round_trip(await swarm.open_stream(peer, [ECHO]))


async def adopt_and_use(swarm: Swarm, link: Link, expected: PeerId) -> None:
    """The initiator may be done before the responder refuses it."""
    connection = await adopt(swarm, link, role="initiator", expected=expected)
    await connection.open_stream([ECHO])


# --- handlers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [KeyError("a defect"), ProtocolViolation("theirs"), ExceptionGroup("g", [KeyError()])]
)
async def test_a_failing_handler_costs_its_stream_only(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(stream: Stream) -> None:
        await stream.receive_some()
        raise error

    async with open_node() as a, open_node() as b:
        await b.swarm.handle(OTHER, fails, max_streams=4, max_per_peer=4)
        await a.swarm.dial(b.addr)
        with caplog.at_level(logging.ERROR):
            stream = await a.swarm.open_stream(b.peer, [OTHER])
            with pytest.raises(StreamReset):
                await round_trip(stream)
        assert bool(caplog.records) is not isinstance(error, ProtocolViolation)
        assert await round_trip(await a.swarm.open_stream(b.peer, [ECHO])) == b"x"


async def test_streams_over_a_handlers_limit_are_reset_and_a_place_comes_back() -> None:
    async with open_node() as a, open_node() as b:
        await b.swarm.unhandle(ECHO)
        await b.swarm.handle(ECHO, echo, max_streams=2, max_per_peer=2)
        await a.swarm.dial(b.addr)
        first, second = [await a.swarm.open_stream(b.peer, [ECHO]) for _ in range(2)]
        assert [await round_trip(first), await round_trip(second)] == [b"x", b"x"]
        with pytest.raises(StreamReset):
            await open_and_use(a.swarm, b.peer)
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await round_trip(await a.swarm.open_stream(b.peer, [ECHO])) == b"x"


async def test_a_protocol_has_one_handler() -> None:
    async with open_node() as a:
        with pytest.raises(ConfigError):
            await a.swarm.handle(ECHO, trio.sleep, max_streams=1, max_per_peer=1)  # type: ignore[arg-type]


async def test_a_protocol_not_for_circuits_is_refused_there() -> None:
    """A link that calls itself relayed, made by hand over TCP."""
    async with open_node() as a, open_node() as b, tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:
        await b.swarm.handle(OTHER, echo, max_streams=4, max_per_peer=4, relayed=False)
        relay = parse(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(STRANGER)}/p2p-circuit")

        async def accept() -> None:
            link = Link(raw=theirs, local=relay, remote=relay, path="relay", inbound=True, relay=STRANGER)
            await adopt(b.swarm, link, role="responder", expected=a.peer)

        nursery.start_soon(accept)
        link = Link(raw=mine, local=relay, remote=relay, path="relay", inbound=False, relay=STRANGER)
        connection = await adopt(a.swarm, link, role="initiator", expected=b.peer)
        assert is_relayed(connection.remote)
        assert (await connection.open_stream([OTHER, ECHO])).protocol == ECHO
        direct = await a.swarm.dial(b.addr)
        assert (direct.path, a.swarm.best(b.peer)) == ("direct", direct)
        assert (await a.swarm.open_stream(b.peer, [OTHER, ECHO])).protocol == OTHER
        nursery.cancel_scope.cancel()


# --- adopting ---------------------------------------------------------------------------------------------


async def test_a_failed_adoption_cuts_the_link() -> None:
    async with open_node(limits=Limits(muxed=MuxedLimits(upgrade_timeout=0.2))) as a, tcp_pair() as (mine, theirs):
        link = Link(raw=mine, local=mine.local, remote=mine.remote, path="direct", inbound=True)
        with pytest.raises(DialTimeout):
            await adopt(a.swarm, link, role="responder", expected=None)
        assert await theirs.receive_some() == b""


async def test_a_cancelled_adoption_cuts_the_link() -> None:
    async with open_node() as a, tcp_pair() as (mine, theirs):
        link = Link(raw=mine, local=mine.local, remote=mine.remote, path="direct", inbound=True)
        with trio.move_on_after(0.05):
            await adopt(a.swarm, link, role="responder", expected=None)
        with trio.fail_after(5):
            assert await theirs.receive_some() == b""


async def test_a_connection_offered_to_a_stopped_swarm_is_cut() -> None:
    async with tcp_pair() as (mine, theirs):
        async with open_node() as a:
            swarm = a.swarm
        far = Link(raw=theirs, local=theirs.local, remote=theirs.remote, path="direct", inbound=True)
        link = Link(raw=mine, local=mine.local, remote=mine.remote, path="direct", inbound=False)
        async with trio.open_nursery() as nursery:
            respond = partial(muxed.upgrade, far, role="responder", identity=Identity.generate(), expected=None)
            nursery.start_soon(respond)
            connection = await swarm.upgrader.upgrade(link, role="initiator", expected=None)
        with pytest.raises(SwarmStopped):
            await swarm.adopt(connection)
        assert connection.closed.is_set()
        with trio.fail_after(5):
            assert await theirs.receive_some() == b""


async def test_adopting_expects_the_peer_in_either_role() -> None:
    async with open_node() as a, open_node() as b, tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:

        async def accept() -> None:
            link = Link(raw=theirs, local=theirs.local, remote=theirs.remote, path="direct", inbound=True, punched=True)
            with pytest.raises(WrongPeer):
                await adopt(b.swarm, link, role="responder", expected=STRANGER)

        nursery.start_soon(accept)
        link = Link(raw=mine, local=mine.local, remote=mine.remote, path="direct", inbound=False, punched=True)
        with pytest.raises((AuthenticationFailed, StreamReset)):
            await adopt_and_use(a.swarm, link, b.peer)
        assert b.swarm.connections() == ()


async def test_a_defect_in_the_handshake_costs_one_link(monkeypatch: pytest.MonkeyPatch) -> None:
    original = muxed.upgrade
    calls = []

    async def broken_once(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("a defect")
        return await original(*args, **kwargs)  # type: ignore[arg-type]

    async with open_node() as a, open_node() as b:
        monkeypatch.setattr(muxed, "upgrade", broken_once)
        with pytest.raises(ProtocolViolation):
            await a.swarm.dial(b.addr)
        assert (await a.swarm.dial(b.addr)).peer == b.peer


# --- events and closing -----------------------------------------------------------------------------------


async def test_a_connection_is_in_the_table_when_opened_is_told_and_gone_when_closed_is() -> None:
    async with open_node() as a, open_node() as b:
        seen: list[tuple[str, bool, bool]] = []

        def look(event: Event) -> None:
            if isinstance(event, ConnectionOpened | ConnectionClosed):
                known = a.swarm.connection(event.connection) is not None
                seen.append((event.name, known, a.swarm.best(b.peer) is not None))

        a.swarm.events.subscribe(look)
        connection = await a.swarm.dial(b.addr)
        await a.swarm.close(connection)
        await a.record.wait(ConnectionClosed)
        assert seen == [("connection.opened", True, True), ("connection.closed", False, False)]
        closed = a.record.of(ConnectionClosed)[0]
        assert (closed.connection, closed.peer, closed.reason) == (connection.id, peer_text(b.peer), "NORMAL")
        assert closed.bytes_sent > 0


async def test_closing_a_peer_closes_all_its_connections_and_their_streams_end() -> None:
    async with open_node() as a, open_node() as b:
        for _ in range(3):
            await a.swarm.dial(b.addr, fresh=True)
        stream = await a.swarm.open_stream(b.peer, [ECHO])
        await a.swarm.close(b.peer)
        with pytest.raises(ConnectionLost):
            await stream.receive_some()
        assert a.swarm.connections() == ()
        await b.record.wait(ConnectionClosed, 3)
        with pytest.raises(Unreachable):
            await a.swarm.open_stream(b.peer, [ECHO])


async def test_a_cancelled_open_stream_leaves_no_stream() -> None:
    async with open_node() as a, open_node() as b:
        connection = await a.swarm.dial(b.addr)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.swarm.open_stream(connection, [ECHO])
        with trio.move_on_after(0) as scope:
            await a.swarm.open_stream(connection, [ECHO])
        assert scope.cancelled_caught
        assert await round_trip(await a.swarm.open_stream(connection, [ECHO])) == b"x"
        await trio.testing.wait_all_tasks_blocked()
        assert connection.streams == 1


@pytest.mark.parametrize("late", [False, True])
async def test_a_stream_that_opens_while_its_asker_is_cancelled_is_reset(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_node() as a, open_node() as b:
        connection = await a.swarm.dial(b.addr)
        original = a.swarm._pool.open_stream
        scope = trio.CancelScope()

        async def open_then_cancel(*args: Any) -> Stream:
            stream = await original(*args)
            scope.cancel()
            if late:  # the asker is gone before the reply is filled
                await trio.lowlevel.cancel_shielded_checkpoint()
                await trio.lowlevel.cancel_shielded_checkpoint()
            return stream

        monkeypatch.setattr(a.swarm._pool, "open_stream", open_then_cancel)
        with scope:
            await a.swarm.open_stream(connection, [ECHO])
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert connection.streams == 0


async def test_circuits_are_closed_before_the_connections_below_them() -> None:
    relay = parse(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(STRANGER)}/p2p-circuit")
    async with open_node() as b, tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:
        async with open_node() as a:
            link = Link(raw=theirs, local=relay, remote=relay, path="relay", inbound=True, relay=STRANGER)
            nursery.start_soon(partial(adopt, b.swarm, link, role="responder", expected=None))
            link = Link(raw=mine, local=relay, remote=relay, path="relay", inbound=False, relay=STRANGER)
            await a.swarm.dial(b.addr)
            await adopt(a.swarm, link, role="initiator", expected=b.peer)
        assert [event.path for event in a.record.of(ConnectionClosed)] == ["relay", "direct"]
        assert [event.reason for event in a.record.of(ConnectionClosed)] == ["NORMAL", "NORMAL"]


# --- bounds and stopping ----------------------------------------------------------------------------------


async def test_commands_beyond_the_bound_fail_at_once() -> None:
    async with open_node(commands=3) as a, trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            addr = parse(f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}")
            for _ in range(3):
                nursery.start_soon(partial(a.swarm.dial, addr, fresh=True))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LimitExceeded):
                await a.swarm.unhandle(OTHER)
            nursery.cancel_scope.cancel()


async def test_more_commands_than_the_mailbox_holds_are_all_answered() -> None:
    async with open_node() as a, open_node() as b:
        await a.swarm.dial(b.addr)
        done = []

        async def one() -> None:
            await a.swarm.unhandle(OTHER)
            done.append(1)

        async with trio.open_nursery() as nursery:
            for _ in range(3 * a.swarm.config.limits.swarm.mailbox):
                nursery.start_soon(one)
        assert len(done) == 3 * a.swarm.config.limits.swarm.mailbox


async def test_every_pending_command_ends_with_swarm_stopped() -> None:
    ended: list[str] = []

    async def waits(command: Awaitable[object]) -> None:
        with pytest.raises(SwarmStopped):
            await command
        ended.append("stopped")

    with socket.create_server(("127.0.0.1", 0)) as mute:
        addr = parse(f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}")
        async with trio.open_nursery() as nursery, open_node() as a:
            swarm = a.swarm
            for command in (
                swarm.dial(addr),
                swarm.dial(addr, expected=STRANGER),
                swarm.connect(STRANGER, [addr]),
            ):
                nursery.start_soon(waits, command)
            await trio.testing.wait_all_tasks_blocked()
            assert ended == []
    assert ended == ["stopped"] * 3
    for call in (swarm.dial(addr), swarm.listen(addr), swarm.open_stream(STRANGER, [ECHO]), swarm.unhandle("x")):
        with pytest.raises(SwarmStopped):
            await call


async def test_a_clean_stop_leaves_no_task_socket_or_file() -> None:
    async with open_node() as outside:
        await trio.testing.wait_all_tasks_blocked()
        before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
        async with open_node() as a, open_node(parse("/ip6/::1/tcp/0"), parse("/ip4/0.0.0.0/tcp/0")) as b:
            await a.swarm.dial(b.swarm.listen_addrs()[0])
            await outside.swarm.dial(a.addr)
            await a.swarm.open_stream(b.peer, [ECHO])
            assert trio.lowlevel.current_statistics().tasks_living > tasks
        await outside.record.wait(ConnectionClosed)
        await trio.testing.wait_all_tasks_blocked()
        assert open_descriptors() == before
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_stop_says_goodbye_and_is_quick() -> None:
    async with open_node() as a:
        async with open_node() as b:
            await a.swarm.dial(b.addr)
            started = trio.current_time()
        assert trio.current_time() - started < a.swarm.config.limits.muxed.close_timeout  # nothing was waited for
        closed = await a.record.wait(ConnectionClosed)
        assert closed.reason in ("CLOSED_BY_PEER", "NORMAL")


@pytest.mark.parametrize("how", ["error", "cancel"])
async def test_a_swarm_whose_owner_fails_or_is_cancelled_is_closed_too(how: str) -> None:
    await trio.testing.wait_all_tasks_blocked()
    before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living

    async def owner() -> None:
        async with open_node() as a, open_node() as b:
            await a.swarm.dial(b.addr)
            if how == "error":
                raise KeyError("the owner's")
            await trio.sleep_forever()

    if how == "error":
        with pytest.raises(KeyError):
            await owner()
    else:
        with trio.move_on_after(0.2):
            await owner()
    await trio.testing.wait_all_tasks_blocked()
    assert open_descriptors() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_two_swarms_of_one_process_do_not_know_each_other() -> None:
    async with open_swarm(SwarmConfig(Identity.generate()), EventHub()) as a, open_node() as b:
        assert a.listen_addrs() == a.announced() == ()
        assert a.listen_port(4, "tcp") is None
        connection = await a.dial(b.addr)
        assert (await b.record.wait(ConnectionOpened)).peer == peer_text(a.peer)
        assert connection.peer == b.peer
