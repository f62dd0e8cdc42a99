"""Two programs with one key at a relay: both are told, one goes on; one program that came back is told nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from punchbridge.addresses import Multiaddr, endpoint_of, parse, with_peer
from punchbridge.config import Limits, RelayClientLimits
from punchbridge.errors import ConnectionLost, NegotiationFailed, RelayRefused, ReplacedBySameKey, StreamReset
from punchbridge.eventhub import EventHub
from punchbridge.events import ConnectionClosed, ErrorEvent, Event, KeyShared, ReservationAccepted, ReservationLost
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, peer_text
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.circuit import HOP, Status, encode_reserve
from punchbridge.wire.notice import MAX_NOTICE, NOTICE, NoticeCode, decode_notice, encode_notice
from punchbridge_relay.limits import HopLimits
from tests.support.relay_lab import ECHO, Log, Network, Node, Relay, connect_raw, echo, grant, hop, network, reserve

OLDER = NoticeCode.REPLACED_BY_SAME_KEY.value
NEWER = NoticeCode.SAME_KEY_ELSEWHERE.value
OFTEN = RelayClientLimits(lease_least=0.4, lease_most=0.4)
"""Reservations are renewed several times a second."""


@dataclass
class Program:
    """A whole host with a relay to keep, and what happened there."""

    host: Host
    log: Log

    def told(self) -> list[str]:
        return [event.code for event in self.log.of(KeyShared)]


async def program(
    net: Network, identity: Identity, relay: Multiaddr, limits: RelayClientLimits | None = None
) -> Program:
    """A program that keeps a reservation; it is still being asked for."""
    log, hub = Log(), EventHub()
    hub.subscribe(log)
    config = HostConfig(
        identity=identity,
        relays=(relay,),
        allow_private=True,
        limits=Limits(relay_client=limits or RelayClientLimits()),
    )

    async def live(*, task_status: trio.TaskStatus[Host]) -> None:
        async with open_host(config, hub) as host:
            task_status.started(host)
            await trio.sleep_forever()

    return Program(await net.nursery.start(live), log)


async def told(one: Program | Node, code: str, count: int = 1) -> KeyShared:
    return await one.log.wait(KeyShared, count, lambda event: event.code == code)


async def test_the_older_of_two_programs_stops_and_the_newer_is_warned() -> None:
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        older = await program(net, identity, relay.addr, OFTEN)
        await older.log.wait(ReservationAccepted)
        newer = await program(net, identity, relay.addr, OFTEN)
        assert (await told(older, OLDER)).relay == peer_text(relay.swarm.peer)
        assert (await told(newer, NEWER)).relay == peer_text(relay.swarm.peer)
        error = await older.log.wait(ErrorEvent)
        assert error.code == "REPLACED_BY_SAME_KEY"
        assert "the same key" in error.message
        lost = await older.log.wait(ReservationLost)
        assert (lost.code, lost.retry_in) == ("REPLACED_BY_SAME_KEY", 0.0)
        assert older.host.relay_client.reservations() == ()
        accepted = len(older.log.of(ReservationAccepted))
        renewed = len(newer.log.of(ReservationAccepted))
        await newer.log.wait(ReservationAccepted, renewed + 4)
        assert len(older.log.of(ReservationAccepted)) == accepted
        assert (older.told(), newer.told()) == ([OLDER], [NEWER])
        assert newer.log.of(ErrorEvent) == []
        assert relay.service.stats().reservations == 1
        with pytest.raises(ReplacedBySameKey):
            await older.host.relay_client.reserve(relay.addr)


async def test_of_nine_programs_that_start_at_once_one_goes_on() -> None:
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        programs: list[Program] = []
        stopped, eight = list[Event](), trio.Event()

        def count(event: Event) -> None:
            if isinstance(event, ErrorEvent):
                stopped.append(event)
                if len(stopped) == 8:
                    eight.set()

        async def start() -> None:
            one = await program(net, identity, relay.addr, OFTEN)
            one.host.swarm.events.subscribe(count)
            programs.append(one)

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(start)
        with trio.fail_after(40):
            await eight.wait()
        (last,) = [one for one in programs if not one.log.of(ErrorEvent)]
        others = [one for one in programs if one is not last]
        before = [len(one.log.of(ReservationAccepted)) for one in others]
        renewed = len(last.log.of(ReservationAccepted))
        await last.log.wait(ReservationAccepted, renewed + 6)
        assert last.host.relay_client.reservations() != ()
        assert [len(one.log.of(ReservationAccepted)) for one in others] == before
        assert [one.told().count(OLDER) for one in others] == [1] * 8
        assert OLDER not in last.told()
        assert 1 <= last.told().count(NEWER) <= RelayClientLimits().notice_burst


async def test_a_change_of_the_network_lets_the_older_one_ask_again() -> None:
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        older = await program(net, identity, relay.addr)
        await older.log.wait(ReservationAccepted)
        newer = await program(net, identity, relay.addr)
        await told(older, OLDER)
        await told(newer, NEWER)
        older.host.network_changed()
        await older.log.wait(ReservationAccepted, 2)
        await told(newer, OLDER)
        await told(older, NEWER)
        assert len(older.host.relay_client.reservations()) == 1
        assert newer.host.relay_client.reservations() == ()


async def test_callers_reach_the_program_that_has_the_reservation() -> None:
    """Also when the other one has the newest connection to the relay; and they are told when that program is gone."""
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        older, newer, caller = await net.node(identity=identity), await net.node(identity=identity), await net.node()
        await newer.swarm.handle(ECHO, echo, max_streams=4, max_per_peer=4)
        await older.relays.reserve(relay.addr)
        reservation = await newer.relays.reserve(relay.addr)
        await told(older, OLDER)
        await told(newer, NEWER)
        await older.swarm.dial(relay.addr, fresh=True)
        connection = await caller.swarm.dial(reservation.addrs[0])
        await connection.open_stream([ECHO])  # the older one does not serve it
        newer.relays.release(relay.swarm.peer)
        await newer.swarm.close(relay.swarm.peer)
        await relay.log.wait(ConnectionClosed)
        assert relay.service.stats().reservations == 0
        assert len(relay.swarm.connections(identity.peer_id)) == 2
        with pytest.raises(RelayRefused) as refused:
            await (await net.node()).swarm.dial(reservation.addrs[0])
        assert refused.value.status == Status.NO_RESERVATION.name


@dataclass
class Dark:
    """A forwarder to a relay that can fall silent without a word to either end, as a NAT does that lost its state."""

    addr: Multiaddr
    silent: bool = False
    eaten: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def through_the_dark(relay: Relay) -> AsyncIterator[Dark]:
    place = endpoint_of(relay.addr)
    assert place is not None

    async def pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            if dark.silent:
                dark.eaten.set()
            else:
                await sink.send_all(data)
        if not dark.silent:
            await sink.send_eof()

    async def serve(near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(place.host, place.port) as far, trio.open_nursery() as both:
            both.start_soon(pass_on, near, far)
            both.start_soon(pass_on, far, near)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    dark = Dark(with_peer(parse(f"/ip4/127.0.0.1/tcp/{port}"), relay.swarm.peer))
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield dark
        nursery.cancel_scope.cancel()


async def test_a_fast_restart_is_no_second_program() -> None:
    """The relay asks a connection's end that is gone, although nothing has told it so. The third program shows that it
    has done asking: connections of a peer are asked in turn."""
    async with network() as net:
        relay, identity = await net.relay(hop=HopLimits(same_key_ping=0.5, notice_timeout=30.0)), Identity.generate()
        async with through_the_dark(relay) as dark:
            gone = await program(net, identity, dark.addr)
            await gone.log.wait(ReservationAccepted)
            dark.silent = True
            again = await net.node(identity=identity)
            await again.relays.reserve(relay.addr)
            with trio.fail_after(10):
                await dark.eaten.wait()
            third, order = await net.node(identity=identity), Log()
            for one in (again, third):
                one.swarm.events.subscribe(order)
            await third.relays.reserve(relay.addr)
            await told(again, OLDER)
            await told(third, NEWER)
            assert [event.code for event in order.of(KeyShared)] == [OLDER, NEWER]
            assert [event.code for event in again.log.of(KeyShared)] == [OLDER]
            assert gone.told() == []


async def test_a_program_with_two_connections_is_no_second_program() -> None:
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        one = await net.node(identity=identity)
        await one.relays.reserve(relay.addr)
        await one.swarm.dial(relay.addr, fresh=True)
        one.relays.release(relay.swarm.peer)
        await one.relays.reserve(relay.addr)  # over the newer connection, while the older one lives
        assert len(one.swarm.connections(relay.swarm.peer)) == 2
        other = await net.node(identity=identity)
        await other.relays.reserve(relay.addr)
        await told(other, NEWER)
        assert [event.code for event in one.log.of(KeyShared)] == [OLDER]
        assert len(one.log.of(ReservationAccepted)) == 2
        assert [event.code for event in other.log.of(KeyShared)] == [NEWER]


async def test_programs_that_do_not_know_notices_are_let_be() -> None:
    """Two connections of such a peer stay as they were; one of ours beside it is warned, and told of its end."""
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        foreign = await net.node(client=False, identity=identity)
        assert (await reserve(foreign, relay)).status == Status.OK
        second = await foreign.swarm.dial(relay.addr, fresh=True)
        assert (await hop(second, encode_reserve())).status == Status.OK
        ours = await net.node(identity=identity)
        await ours.relays.reserve(relay.addr)
        await told(ours, NEWER)
        assert (await hop(second, encode_reserve())).status == Status.OK
        await told(ours, OLDER)
        assert len(foreign.swarm.connections(relay.swarm.peer)) == 2
        assert relay.service.refused == {}


async def test_a_request_that_crosses_the_notice_takes_nothing_over() -> None:
    """Else both programs would be told that they were replaced, and nobody were left."""
    async with network() as net:
        relay, identity = await net.relay(), Identity.generate()
        older, codes = await net.node(client=False, identity=identity), list[object]()
        taken = trio.Event()

        async def on_notice(stream: Stream) -> None:
            codes.append(decode_notice(await read_message(stream, MAX_NOTICE)))
            assert (await hop(stream.connection, encode_reserve())).status == Status.OK
            await stream.aclose()
            taken.set()

        await older.swarm.handle(NOTICE, on_notice, max_streams=4, max_per_peer=4)
        assert (await reserve(older, relay)).status == Status.OK
        newer = await net.node(identity=identity)
        await newer.relays.reserve(relay.addr)
        await told(newer, NEWER)
        assert taken.is_set()
        assert codes == [NoticeCode.REPLACED_BY_SAME_KEY]
        third = await net.node(identity=identity)
        await third.relays.reserve(relay.addr)
        await told(newer, OLDER)
        assert [event.code for event in newer.log.of(KeyShared)] == [NEWER, OLDER]


async def test_a_notice_that_comes_before_the_grant_waits_for_it() -> None:
    async with network() as net:
        relay = await net.node(client=False)
        (addr,) = await relay.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
        ends: list[bytes] = []
        ended = trio.Event()

        async def on_hop(stream: Stream) -> None:
            await read_message(stream)
            notice = await stream.connection.open_stream([NOTICE])
            await write_message(notice, encode_notice(NoticeCode.SAME_KEY_ELSEWHERE))
            await write_message(stream, grant(3600))
            ends.append(await notice.receive_some(1))
            ended.set()
            await stream.aclose()

        await relay.swarm.handle(HOP, on_hop, max_streams=4, max_per_peer=4)
        node = await net.node()
        await node.relays.reserve(with_peer(addr, relay.peer))
        await told(node, NEWER)
        with trio.fail_after(10):
            await ended.wait()
        assert ends == [b""]


async def test_notices_are_taken_from_relays_that_are_kept_alone() -> None:
    async with network() as net:
        relay, node, stranger = await net.relay(), await net.node(), await net.node()
        (addr,) = await node.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
        await node.relays.reserve(relay.addr)
        connection = await stranger.swarm.dial(with_peer(addr, node.peer))
        with pytest.raises(NegotiationFailed):
            await connection.open_stream([NOTICE])
        (kept,) = relay.swarm.connections(node.peer)
        await kept.open_stream([NOTICE])


@pytest.mark.parametrize("payload", [b"\x08\x63", b"\x08\x00", b"\xff", bytes(MAX_NOTICE + 1)])
async def test_what_is_no_notice_for_us_is_reset_and_changes_nothing(payload: bytes) -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        reservation = await node.relays.reserve(relay.addr)
        (kept,) = relay.swarm.connections(node.peer)
        stream = await kept.open_stream([NOTICE])
        await write_message(stream, payload)
        with pytest.raises((StreamReset, ConnectionLost)), trio.fail_after(10):
            await stream.receive_some(1)
        assert node.relays.reservations() == (reservation,)
        assert node.log.of(KeyShared) == []


async def test_a_relay_that_warns_again_and_again_is_heard_a_few_times() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node(limits=Limits(relay_client=RelayClientLimits(notice_burst=2)))
        await node.relays.reserve(relay.addr)
        (kept,) = relay.swarm.connections(node.peer)
        for _ in range(5):
            stream = await kept.open_stream([NOTICE])
            await write_message(stream, encode_notice(NoticeCode.SAME_KEY_ELSEWHERE))
            assert await stream.receive_some(1) == b""
        assert [event.code for event in node.log.of(KeyShared)] == [NEWER] * 2


async def test_the_connections_that_are_asked_are_bounded() -> None:
    """Beyond the rate the relay asks nobody: the older program hears nothing, and both have what they had."""
    async with network() as net:
        relay, identity = await net.relay(hop=HopLimits(notice_burst=1, notice_interval=3600.0)), Identity.generate()
        first, second, third = [await net.node(identity=identity) for _ in range(3)]
        await first.relays.reserve(relay.addr)
        await second.relays.reserve(relay.addr)
        await told(first, OLDER)
        await told(second, NEWER)
        await third.relays.reserve(relay.addr)
        stream, answer = await connect_raw(await net.node(client=False), relay, identity.peer_id)
        assert answer.status == Status.OK  # the third takes it
        stream.abort()
        assert [event.code for event in second.log.of(KeyShared)] == [NEWER]
        assert third.log.of(KeyShared) == []
