"""The relay's circuits over loopback sockets: limits, half-close, resets, back-pressure, counting, draining, churn."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from punchbridge.config import MIB
from punchbridge.errors import StreamReset
from punchbridge.events import ConnectionClosed
from punchbridge.identity import Identity
from punchbridge.transport.base import Stream
from punchbridge.wire.circuit import HOP, CircuitLimit, Status, encode_reserve, encode_stop_answer
from punchbridge_relay.events import CircuitClosed, CircuitOpened
from punchbridge_relay.limits import HopLimits
from tests.support.relay_lab import (
    ECHO,
    circuit,
    connect_raw,
    hop,
    network,
    raw_target,
    read_all,
    reserve,
)

STRANGER = Identity.generate().peer_id


async def test_r10_the_target_is_told_who_asks_and_the_limit() -> None:
    async with network() as net:
        relay = await net.relay(circuit_seconds=7, circuit_bytes=0)
        target = await raw_target(net, relay)
        source = await net.node()
        _, answer = await connect_raw(source, relay, target.node.peer)
        _, request = await target.circuit()
        assert answer.limit == request.limit == CircuitLimit(7, None)
        assert request.peer == source.peer


async def test_r11_bytes_behind_the_targets_status_belong_to_the_circuit() -> None:
    async def eager(stream: Stream) -> None:
        status = encode_stop_answer(Status.OK)
        await stream.send_all(bytes([len(status)]) + status + b"first words")

    async with network() as net:
        relay = await net.relay()
        target = await raw_target(net, relay, answer=eager)
        near, _ = await connect_raw(await net.node(), relay, target.node.peer)
        assert await read_all(near, 11) == b"first words"


async def test_r4_the_data_limit_cuts_exactly_and_resets_both() -> None:
    async with network() as net:
        relay = await net.relay(circuit_bytes=1000)
        near, far, _, _ = await circuit(net, relay)
        await near.send_all(b"a" * 1000)
        assert await read_all(far, 1000) == b"a" * 1000
        await far.send_all(b"b" * 999)  # the other direction has its own limit
        assert await read_all(near, 999) == b"b" * 999
        assert relay.service.stats().circuits == 1
        await far.send_all(b"cc")
        assert await read_all(near, 1) == b"c"
        for stream in (near, far):
            with pytest.raises(StreamReset):
                await stream.receive_some()
        closed = await relay.log.wait(CircuitClosed)
        assert (closed.reason, closed.bytes_to_target, closed.bytes_to_source) == ("DATA_LIMIT", 1000, 1000)


async def test_r4_the_duration_limit_cuts_an_idle_circuit() -> None:
    async with network() as net:
        relay = await net.relay(circuit_seconds=1)
        near, far, _, _ = await circuit(net, relay)
        started = trio.current_time()
        for stream in (near, far):
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert 0.5 < trio.current_time() - started < 5
        assert (await relay.log.wait(CircuitClosed)).reason == "DURATION_LIMIT"


async def test_a_circuit_whose_target_takes_nothing_ends_and_an_idle_one_does_not() -> None:
    async with network() as net:
        relay = await net.relay(circuit_bytes=0, circuit_seconds=0, hop=HopLimits(stalled=0.5))
        idle, idle_far, _, _ = await circuit(net, relay)
        near, far, _, _ = await circuit(net, relay)
        with pytest.raises(StreamReset):
            await near.send_all(bytes(16 * MIB))  # `far` reads nothing
        assert (await relay.log.wait(CircuitClosed)).reason == "STALLED"
        await idle.send_all(b"alive")
        assert await read_all(idle_far, 5) == b"alive"
        far.abort()


async def test_half_close_goes_through_both_ways() -> None:
    async with network() as net:
        relay = await net.relay()
        near, far, _, _ = await circuit(net, relay)
        await near.send_all(b"question")
        await near.send_eof()
        assert await read_all(far) == b"question"
        await far.send_all(b"answer")
        await far.send_eof()
        assert await read_all(near) == b"answer"
        closed = await relay.log.wait(CircuitClosed)
        assert (closed.reason, closed.bytes_to_target, closed.bytes_to_source) == ("NORMAL", 8, 6)


@pytest.mark.parametrize("from_source", [True, False])
async def test_a_reset_goes_through_as_a_reset(from_source: bool) -> None:
    async with network() as net:
        relay = await net.relay()
        near, far, _, _ = await circuit(net, relay)
        near, far = (near, far) if from_source else (far, near)
        near.abort()
        with pytest.raises(StreamReset):
            await far.receive_some()
        assert (await relay.log.wait(CircuitClosed)).reason == ("SOURCE_RESET" if from_source else "TARGET_RESET")


async def test_a_lost_connection_resets_the_circuit_even_after_half_close() -> None:
    async with network() as net:
        relay = await net.relay()
        near, far, source, _ = await circuit(net, relay)
        await near.send_eof()
        assert await far.receive_some() == b""
        for connection in source.swarm.connections():
            connection.abort("TEST")
        await relay.log.wait(CircuitClosed)
        with pytest.raises(StreamReset):
            await far.send_all(b"x" * (1 << 20))


async def test_what_a_source_sent_before_it_left_still_arrives() -> None:
    async with network() as net:
        relay = await net.relay(circuit_bytes=0)
        near, far, source, _ = await circuit(net, relay)
        # More than the target's window: the rest waits in the relay when the source is already gone.
        await near.send_all(b"x" * 350_000)
        await near.send_eof()
        await source.swarm.close(relay.swarm.peer)
        await relay.log.wait(ConnectionClosed)
        assert len(await read_all(far, 350_000)) == 350_000
        assert await far.receive_some() == b""
        assert (await relay.log.wait(CircuitClosed)).reason == "CONNECTION_LOST"


async def test_each_circuit_owns_only_its_own_streams() -> None:
    async with network() as net:
        relay = await net.relay()
        near, _, source, target = await circuit(net, relay)
        second, answer = await connect_raw(source, relay, target.node.peer)
        assert answer.status == Status.OK
        far, _ = await target.circuit()
        near.abort()
        await relay.log.wait(CircuitClosed)
        await second.send_all(b"still here")
        assert await read_all(far, 10) == b"still here"
        assert [entry["bytes_to_target"] for entry in relay.service.stats().per_circuit] == [10]


async def test_back_pressure_reaches_the_sender() -> None:
    async with network() as net:
        relay = await net.relay(circuit_bytes=0)
        near, far, _, _ = await circuit(net, relay)
        block, sent = b"x" * 65536, 0
        while True:
            with trio.move_on_after(0.3) as waited:
                await near.send_all(block)
                sent += len(block)
            if waited.cancelled_caught:
                break
            assert sent < 64 << 20, "nobody reads, yet everything is taken"
        assert relay.service.circuits.bytes <= sent + len(block)
        assert len(await read_all(far, sent)) >= sent


async def test_bytes_are_counted_for_each_circuit_and_in_all() -> None:
    async with network() as net:
        relay = await net.relay()
        near, far, source, target = await circuit(net, relay)
        opened = await relay.log.wait(CircuitOpened)
        assert (opened.source, opened.target) == (str(source.swarm.identity), str(target.node.swarm.identity))
        await near.send_all(b"12345")
        await far.send_all(b"123")
        await read_all(far, 5)
        await read_all(near, 3)
        stats = relay.service.stats()
        assert (stats.reservations, stats.circuits, stats.bytes_) == (1, 1, 8)
        assert stats.per_circuit[0]["bytes_to_target"] == 5
        assert stats.per_circuit[0]["bytes_to_source"] == 3
        near.abort()
        await relay.log.wait(CircuitClosed)
        stats = relay.service.stats()
        assert (stats.circuits, stats.bytes_, stats.per_circuit) == (0, 8, ())


async def test_drain_refuses_ends_reservations_and_says_goodbye() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        assert (await reserve(node, relay)).status == Status.OK
        await relay.service.drain()
        assert relay.service.stats().reservations == 0
        closed = await node.log.wait(ConnectionClosed)
        assert closed.reason == "CLOSED_BY_PEER"
        # The swarm still listens; its end is the program's business. Nothing is granted any more.
        assert (await reserve(node, relay)).status == Status.RESERVATION_REFUSED
        _, answer = await connect_raw(node, relay, STRANGER)
        assert answer.status == Status.RESOURCE_LIMIT_EXCEEDED


async def test_a_large_transfer_over_a_circuit_arrives_whole() -> None:
    async with network() as net:
        relay = await net.relay(circuit_bytes=0)
        dialer, listener, addr = await net.pair(relay)
        connection = await dialer.swarm.dial(addr)
        stream = await connection.open_stream([ECHO])
        payload = bytes(range(256)) * 16384  # 4 MiB
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(payload)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await read_all(stream) == payload
        assert relay.service.circuits.bytes > 2 * len(payload)
        assert listener.swarm.connections(dialer.peer)[0].path == "relay"


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_any_requests_leave_the_relay_in_service(payloads: list[bytes]) -> None:
    async def main() -> None:
        async with network() as net:
            relay, node = await net.relay(), await net.node()
            connection = await node.swarm.dial(relay.addr)
            for payload in payloads:
                stream = await connection.open_stream([HOP])
                await stream.send_all(payload)
                await stream.send_eof()
                with trio.move_on_after(5) as waited:
                    await read_all(stream)
                assert not waited.cancelled_caught
            assert (await hop(connection, encode_reserve())).status == Status.OK
            await trio.testing.wait_all_tasks_blocked(0.001)
            assert relay.service._requests._all == 0

    trio.run(main)


async def test_churn_leaves_nothing_behind() -> None:
    async with network() as net:
        relay = await net.relay(peer_burst=0, address_burst=0)
        target = await raw_target(net, relay)
        source = await net.node(client=False)
        for round_ in range(60):
            near, answer = await connect_raw(source, relay, target.node.peer)
            assert answer.status == Status.OK
            far, _ = await target.circuit()
            await near.send_all(b"ping")
            assert await read_all(far, 4) == b"ping"
            (near, far)[round_ % 2].abort()
        await relay.log.wait(CircuitClosed, 60)
        assert len(relay.service.circuits) == 0
        assert relay.service.circuits.bytes == 240
        registration = relay.swarm.registry.get(HOP)
        assert registration is not None
        with trio.fail_after(5):
            while registration.total or any(one.streams for one in relay.swarm.connections()):
                await trio.testing.wait_all_tasks_blocked(0.001)
