"""The relay client's calls that overlap: two that wait for one relay, keeping while asking, letting go and taking
again, and a circuit that is offered before the answer to the reservation is read."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.addresses import with_peer
from punchbridge.behaviours.relay_client import Reservation
from punchbridge.events import ReservationAccepted, ReservationLost
from punchbridge.identity import Identity
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.circuit import HOP, STOP, Status, decode_stop_answer, encode_hop_answer, encode_stop_connect
from tests.support.relay_lab import ANY_PORT, grant, mute_relay, network


async def test_one_who_waits_for_a_reservation_goes_away_and_the_other_gets_it() -> None:
    async with network() as net:
        node, relay_node = await net.node(), await net.node(client=False)
        (addr,) = await relay_node.swarm.listen(ANY_PORT)
        go = trio.Event()

        async def on_hop(stream: Stream) -> None:
            await read_message(stream)
            await go.wait()
            await write_message(stream, grant(3600))
            await stream.aclose()

        await relay_node.swarm.handle(HOP, on_hop, max_streams=4, max_per_peer=4)
        relay = with_peer(addr, relay_node.peer)
        scope, got = trio.CancelScope(), []

        async def first() -> None:
            with scope:
                await node.relays.reserve(relay)

        async def second() -> None:
            got.append(await node.relays.reserve(relay))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(second)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            go.set()
        assert [type(one) for one in got] == [Reservation]
        assert node.relays.reservations() == tuple(got)


async def test_a_relay_is_kept_though_whoever_asked_it_first_went_away() -> None:
    async with network() as net:
        _, addr, asked = await mute_relay(net)
        node = await net.node()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.relays.reserve, addr)
            await asked.wait()
            node.relays.keep([addr])
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert node.relays.kept == (addr,)


async def test_a_relay_that_was_let_go_can_be_taken_again_at_once() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        node.relays.release(relay.swarm.peer)
        node.relays.keep([relay.addr])
        await node.log.wait(ReservationAccepted, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert len(node.relays.reservations()) == 1
        assert len(node.swarm.announced()) == 1
        node.relays.release(relay.swarm.peer)
        assert await node.relays.reserve(relay.addr) is not None
        await trio.testing.wait_all_tasks_blocked()
        assert len(node.relays.reservations()) == 1
        assert len(node.log.of(ReservationAccepted)) == 3


async def test_who_asks_while_a_lost_reservation_is_made_again_waits_for_it() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        [connection] = node.swarm.connections(relay.swarm.peer)
        connection.abort("TEST")
        await node.log.wait(ReservationLost)
        assert node.relays.reservations() == ()
        again = await node.relays.reserve(relay.addr)
        assert node.relays.reservations() == (again,)


@pytest.mark.parametrize("granted", [True, False])
async def test_a_circuit_offered_right_behind_the_grant_waits_for_it(granted: bool) -> None:
    """Both arrive in one read, and nothing says whose task runs first; a dialler may have waited for this listener."""
    async with network() as net:
        node, relay_node = await net.node(), await net.node(client=False)
        (addr,) = await relay_node.swarm.listen(ANY_PORT)
        answers: list[int] = []

        async def on_hop(stream: Stream) -> None:
            await read_message(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(offer, stream)
                await trio.testing.wait_all_tasks_blocked()
                answer = grant(3600) if granted else encode_hop_answer(Status.RESERVATION_REFUSED)
                await write_message(stream, answer)
                await stream.aclose()

        async def offer(request: Stream) -> None:
            stream = await request.connection.open_stream([STOP])
            await write_message(stream, encode_stop_connect(Identity.generate().peer_id))
            answers.append(decode_stop_answer(await read_message(stream)).status)
            stream.abort()

        await relay_node.swarm.handle(HOP, on_hop, max_streams=4, max_per_peer=4)
        node.relays.keep([with_peer(addr, relay_node.peer)])
        with trio.fail_after(5):
            while not answers:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert answers == [Status.OK if granted else Status.CONNECTION_FAILED]
