"""Identify and ping between hosts of ours, over loopback: every connection, pushes, observed addresses, limits."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import trio

from punchbridge.access.policy import OPEN
from punchbridge.addresses import Multiaddr, parse, with_peer
from punchbridge.config import IdentifyLimits, Limits, PingLimits, Punch
from punchbridge.errors import (
    AddressError,
    DialTimeout,
    LimitExceeded,
    PortInUse,
    ProtocolViolation,
    StreamReset,
    Unreachable,
)
from punchbridge.eventhub import EventHub
from punchbridge.events import ConnectionClosed, ConnectionOpened, Identified, ObservedAddress
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, peer_text
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import write_message
from punchbridge.transport.link import Link
from punchbridge.wire import varint
from punchbridge.wire.identify import IDENTIFY, PUSH, encode_info
from punchbridge.wire.messages import Identify
from punchbridge.wire.ping import PING, PING_SIZE
from tests.support.pairs import tcp_pair
from tests.support.swarms import LOOPBACK, Recorder, adopt, open_descriptors, open_node

TAKEN = IdentifyLimits().pushes_taken


@dataclass
class Party:
    host: Host
    record: Recorder

    @property
    def addr(self) -> Multiaddr:
        return with_peer(self.host.swarm.listen_addrs()[0], self.host.swarm.peer)


@asynccontextmanager
async def open_party(
    identity: Identity | None = None, *, push_delay: float = 0.2, answer: float = 5.0, echo: float = 10.0
) -> AsyncIterator[Party]:
    hub = EventHub()
    record = Recorder(hub)
    config = HostConfig(
        identity or Identity.generate(),
        (LOOPBACK,),
        agent="party/1",
        access=OPEN,
        allow_private=True,
        punch=Punch(enabled=False),
        autonat=False,
        limits=Limits(identify=IdentifyLimits(push_delay=push_delay, timeout=answer), ping=PingLimits(timeout=echo)),
    )
    async with open_host(config, hub) as host:
        yield Party(host, record)


async def identified(connection: Connection) -> Connection:
    with trio.fail_after(5):
        await connection.identified.wait()
    return connection


async def test_both_sides_learn_agent_protocols_addresses_and_their_own_observed_address() -> None:
    async with open_party() as a, open_party() as b:
        mine = await identified(await a.host.dial(b.addr))
        theirs = await identified(b.host.swarm.connections()[0])
        for connection, other in ((mine, b), (theirs, a)):
            info = connection.identify
            assert info is not None
            assert info.agent == "party/1"
            assert {IDENTIFY, PUSH, PING} <= set(info.protocols)
            assert info.listen == other.host.swarm.announced() == other.host.swarm.listen_addrs()
            assert info.observed == connection.local
        event = await a.record.wait(Identified)
        assert (event.connection, event.peer, event.push) == (mine.id, peer_text(b.host.swarm.peer), False)
        assert event.observed == str(mine.local)
        assert (await a.record.wait(ObservedAddress)).addr == str(mine.local)
        assert a.host.swarm.observed.addresses() == (mine.local,)


async def test_identify_runs_on_every_connection_and_only_the_listening_port_is_recorded() -> None:
    async with open_party() as a, open_party() as b:
        first = await identified(await a.host.dial(b.addr))
        second = await identified(await a.host.swarm.dial(b.addr, fresh=True))
        assert second.local != first.local
        assert second.identify is not None
        assert second.identify.observed == second.local
        assert a.host.swarm.observed.addresses() == (first.local,)
        assert len(a.record.of(ObservedAddress)) == 1


async def test_an_observation_goes_stale_with_the_last_connection_of_its_observer() -> None:
    async with open_party() as a, open_party() as b:
        connection = await identified(await a.host.dial(b.addr))
        assert len(a.host.swarm.observed.current(math.inf)) == 1
        await a.host.swarm.close(connection)
        assert a.host.swarm.observed.current(math.inf) == ()


async def test_a_change_is_pushed_once_and_merged() -> None:
    relay = Identity.generate().peer_id
    external = parse("/ip4/11.0.0.1/tcp/1")
    circuit = parse(f"/ip4/11.0.0.9/tcp/1/p2p/{peer_text(relay)}/p2p-circuit")
    async with open_party() as a, open_party() as b:
        connection = await identified(await a.host.dial(b.addr))
        await identified(b.host.swarm.connections()[0])
        b.host.swarm.set_external(external, True)
        b.host.swarm.set_circuit_addrs(relay, (circuit,))
        with trio.fail_after(5):
            while not any(event.push for event in a.record.of(Identified)):
                await a.record.wait(Identified, len(a.record.of(Identified)) + 1)
        assert connection.identify is not None
        assert connection.identify.listen == (external, *b.host.swarm.listen_addrs(), circuit)
        assert connection.identify.agent == "party/1"
        assert len([event for event in a.record.of(Identified) if event.push]) == 1


async def test_a_change_that_was_taken_back_is_not_pushed() -> None:
    async with open_party() as a, open_party(push_delay=0.05) as b:
        await identified(await a.host.dial(b.addr))
        await identified(b.host.swarm.connections()[0])
        b.host.swarm.set_external(parse("/ip4/11.0.0.1/tcp/1"), True)
        pushed = await a.record.wait(Identified, 2)
        assert pushed.push
        b.host.swarm.set_external(parse("/ip4/11.0.0.2/tcp/1"), True)
        b.host.swarm.set_external(parse("/ip4/11.0.0.2/tcp/1"), False)
        with trio.move_on_after(0.5):
            await a.record.wait(Identified, 3)
        assert len(a.record.of(Identified)) == 2


async def test_a_connection_that_is_only_just_made_is_not_pushed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the table before its event comes; then it is told all by its own question."""
    async with open_party() as a, open_party(push_delay=0.0) as b:
        real = b.host.swarm._pool._run

        async def run(connection: Connection, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC128 - `real` does
            with trio.CancelScope(shield=True):
                b.host.swarm.announcements.revision.notify()
                await trio.testing.wait_all_tasks_blocked()
            await real(connection, task_status=task_status)

        monkeypatch.setattr(b.host.swarm._pool, "_run", run)
        await identified(await a.host.dial(b.addr))
        await identified(b.host.swarm.connections()[0])
        b.host.swarm.set_external(parse("/ip4/11.0.0.1/tcp/1"), True)
        assert (await a.record.wait(Identified, 2)).push
        assert [event.push for event in a.record.of(Identified)] == [False, True]
        assert len((await a.record.wait(Identified, 2)).listen) == 2


async def test_changes_that_come_faster_than_pushes_leave_wait_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_party() as a, open_party(push_delay=0.0) as b:
        connection = await identified(await a.host.dial(b.addr))
        await identified(b.host.swarm.connections()[0])
        service = b.host.identify
        nursery = service._nursery
        assert nursery is not None
        monkeypatch.setattr(service, "_pushes", trio.CapacityLimiter(1))
        await trio.testing.wait_all_tasks_blocked()
        before = len(nursery.child_tasks)
        async with service._pushes:  # every other push is slow
            for number in range(1, 6):
                b.host.swarm.set_external(parse(f"/ip4/11.0.0.{number}/tcp/1"), True)
                await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == before + 1
        assert (await a.record.wait(Identified, 2)).push
        assert connection.identify is not None
        assert parse("/ip4/11.0.0.5/tcp/1") in connection.identify.listen


async def test_nothing_is_pushed_and_nothing_observed_on_a_relayed_connection() -> None:
    relay = parse(f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(Identity.generate().peer_id)}/p2p-circuit")
    async with open_party() as a, open_party() as b, tcp_pair() as (mine, theirs), trio.open_nursery() as nursery:
        link = Link(raw=theirs, local=relay, remote=relay, path="relay", inbound=True)

        async def accept() -> None:
            await adopt(b.host.swarm, link, role="responder", expected=None)

        nursery.start_soon(accept)
        other = Link(raw=mine, local=relay, remote=relay, path="relay", inbound=False)
        connection = await identified(await adopt(a.host.swarm, other, role="initiator", expected=b.host.swarm.peer))
        assert connection.identify is not None
        assert connection.identify.observed is None
        await b.record.wait(Identified)
        direct = await identified(await a.host.dial(b.addr))
        b.host.swarm.set_external(parse("/ip4/11.0.0.1/tcp/1"), True)
        pushed = await a.record.wait(Identified, 3)
        assert (pushed.push, pushed.connection) == (True, direct.id)
        await trio.testing.wait_all_tasks_blocked()
        assert [event.connection for event in a.record.of(Identified) if event.push] == [direct.id]


# --- strange peers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["foreign key", "garbage", "oversized", "silence", "reset", "end"])
async def test_a_peer_that_answers_wrongly_stays_connected_but_unidentified(
    kind: str,
) -> None:
    foreign = encode_info(Identity.generate(), agent="liar", protocols=[], listen=[], observed=None)
    answers = {
        "foreign key": varint.prefixed(foreign),
        "garbage": b"\x05\xff\xff\xff\xff\xff",
        "oversized": b"\xff\xff\x7f",
    }

    async def answer(stream: Stream) -> None:
        if kind == "silence":
            await stream.receive_some()
        elif kind == "reset":
            stream.reset()
        else:
            await stream.send_all(answers.get(kind, b""))
            await stream.aclose()

    async with open_party(answer=0.3) as a, open_node() as b:
        await b.swarm.handle(IDENTIFY, answer, max_streams=4, max_per_peer=4)
        connection = await identified(await a.host.dial(b.addr))
        assert connection.identify is None
        assert not connection.closed.is_set()
        assert a.record.of(Identified) == []
        await trio.testing.wait_all_tasks_blocked()
        assert connection.streams == 0


async def test_an_answer_in_several_messages_and_pieces_is_merged() -> None:
    parts = [
        Identify(agent_version="split/1"),
        Identify(protocols=["/a"]),
        Identify(listen_addrs=[b"\xff", LOOPBACK.to_bytes()]),
    ]
    raw = b"".join(varint.prefixed(part.SerializeToString()) for part in parts)

    async def answer(stream: Stream) -> None:
        for index in range(len(raw)):
            await stream.send_all(raw[index : index + 1])
        await stream.aclose()

    async with open_party() as a, open_node() as b:
        await b.swarm.handle(IDENTIFY, answer, max_streams=4, max_per_peer=4)
        connection = await a.host.dial(b.addr)
        await a.record.wait(Identified, 3)
        info = connection.identify
        assert info is not None
        assert (info.agent, info.protocols, info.listen) == ("split/1", ("/a",), (LOOPBACK,))


async def test_a_peer_that_pushes_for_ever_is_read_slowly() -> None:
    async with open_party() as a, open_party() as b:
        connection = await identified(await b.host.dial(a.addr))
        await identified(a.host.swarm.connections()[0])
        for number in range(TAKEN + 20):
            agent = f"party/{number}"
            raw = encode_info(b.host.swarm.identity, agent=agent, protocols=(), listen=(), observed=None)
            with suppress(StreamReset):  # those that wait take all places of a peer
                stream = await connection.open_stream((PUSH,))
                await write_message(stream, raw)
                await stream.aclose()
        await connection.ping()
        taken = [event for event in a.record.of(Identified) if event.push]
        assert TAKEN <= len(taken) <= TAKEN + 10


async def test_of_pushes_that_have_to_wait_one_waits() -> None:
    async with open_party() as a, open_party() as b:
        connection = await identified(await b.host.dial(a.addr))
        await identified(a.host.swarm.connections()[0])
        refusals = a.host.swarm.refusals.counts
        with trio.fail_after(20):
            while not refusals["identify_pushes"]:
                with suppress(StreamReset):
                    await (await connection.open_stream((PUSH,))).send_eof()
        assert len(a.host.identify._taking) <= 1
        await connection.ping()


async def test_a_push_with_another_peers_key_changes_nothing() -> None:
    async with open_party() as a, open_node() as b:
        connection = await b.swarm.dial(a.addr)
        await a.record.wait(ConnectionOpened)
        stream = await connection.open_stream([PUSH])
        liar = encode_info(Identity.generate(), agent="liar", protocols=[], listen=[], observed=None)
        await stream.send_all(varint.prefixed(liar))
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert a.host.swarm.connections()[0].identify is None


# --- ping -------------------------------------------------------------------------------------------------


def generator(trips: AsyncIterator[float]) -> AsyncGenerator[float, None]:
    assert isinstance(trips, AsyncGenerator)
    return trips


async def test_ping_gives_round_trips_and_leaves_nothing() -> None:
    async with open_party() as a, open_party() as b:
        connection = await identified(await a.host.dial(b.addr))
        trips = [rtt async for rtt in a.host.ping.ping(b.host.swarm.peer, count=3, interval=0)]
        assert len(trips) == 3
        assert all(0 < rtt < 5 for rtt in trips)
        async with aclosing(generator(a.host.ping.ping(connection, interval=0))) as endless:
            async for _ in endless:
                break
        await trio.testing.wait_all_tasks_blocked()
        assert connection.streams == 0
        with pytest.raises(Unreachable):
            await anext(a.host.ping.ping(Identity.generate().peer_id))


async def test_only_one_ping_runs_to_a_peer() -> None:
    async with open_party() as a, open_party() as b:
        await a.host.dial(b.addr)
        async with aclosing(generator(a.host.ping.ping(b.host.swarm.peer, interval=0))) as running:
            await anext(running)
            with pytest.raises(LimitExceeded):
                await anext(a.host.ping.ping(b.host.swarm.peer))
        assert len([rtt async for rtt in a.host.ping.ping(b.host.swarm.peer, count=1)]) == 1


async def test_a_third_inbound_ping_stream_is_reset() -> None:
    async with open_party() as a, open_node() as b:
        await b.swarm.dial(a.addr)

        async def exchange() -> bytes:
            stream = await b.swarm.open_stream(a.host.swarm.peer, [PING])
            await stream.send_all(b"p" * PING_SIZE)
            return await stream.receive_some()

        assert await exchange() == await exchange() == b"p" * PING_SIZE
        with pytest.raises(StreamReset):
            await exchange()


@pytest.mark.parametrize(("kind", "error"), [("wrong", ProtocolViolation), ("mute", DialTimeout), ("end", Unreachable)])
async def test_a_ping_that_is_not_echoed_fails_by_type(kind: str, error: type[Exception]) -> None:
    async def answer(stream: Stream) -> None:
        data = await stream.receive_some()
        if kind == "wrong":
            await stream.send_all(bytes(byte ^ 1 for byte in data))
        if kind == "mute":
            await stream.receive_some()
        await stream.aclose()

    async with open_party(echo=0.2) as a, open_node() as b:
        await b.swarm.handle(PING, answer, max_streams=4, max_per_peer=4)
        await a.host.dial(b.addr)
        with pytest.raises(error):
            await anext(a.host.ping.ping(b.swarm.peer, count=1))


# --- host -------------------------------------------------------------------------------------------------


async def test_a_target_names_its_peer() -> None:
    async with open_party() as a, open_party() as b:
        with pytest.raises(AddressError, match="/p2p/ID"):
            await a.host.dial(b.host.swarm.listen_addrs()[0])


async def test_a_host_leaves_no_task_and_no_descriptor() -> None:
    async with open_node() as outside:
        await trio.testing.wait_all_tasks_blocked()
        before, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
        config = HostConfig(Identity.generate(), (LOOPBACK,), access=OPEN, allow_private=True)
        async with open_host(config, EventHub()) as host:
            await identified(await host.dial(outside.addr))
        await outside.record.wait(ConnectionClosed)
        await trio.testing.wait_all_tasks_blocked()
        assert open_descriptors() == before
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_port_in_use_fails_the_host_with_its_own_error() -> None:
    async with open_party() as a:
        config = HostConfig(
            Identity.generate(), a.host.swarm.listen_addrs(), punch=Punch(enabled=False), access=OPEN, autonat=False
        )
        with pytest.raises(PortInUse):
            async with open_host(config, EventHub()):
                pass


async def test_the_owners_error_comes_out_of_a_host_as_it_is() -> None:
    config = HostConfig(Identity.generate(), (LOOPBACK,), access=OPEN)
    with pytest.raises(KeyError):
        async with open_host(config, EventHub()):
            raise KeyError("the owner's")
