"""The relay's side of circuit v2, row by row of the checklist, over loopback sockets with raw messages."""

from __future__ import annotations

import time
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_lab import (
    ECHO,
    circuit,
    connect_raw,
    hop,
    network,
    raw_target,
    read_all,
    reserve,
)

from bridge.addresses import is_relayed, parse, peer_of
from bridge.behaviours.relay_client import RelayClient
from bridge.errors import NegotiationFailed, StreamReset
from bridge.events import CircuitClosed, CircuitOpened, ConnectionClosed
from bridge.identity import Identity
from bridge.protocol import messages as pb
from bridge.protocol import varint
from bridge.protocol.circuit import (
    HOP,
    CircuitLimit,
    Status,
    decode_hop_answer,
    encode_hop_answer,
    encode_hop_connect,
    encode_reserve,
    encode_stop_answer,
)
from bridge.protocol.voucher import open_voucher
from bridge.swarm.delimited import read_message, write_message
from bridge.swarm.stream import Stream
from relay.access import Access, Rules

STRANGER = Identity.generate().peer_id


# --- R1, R2, R5, R12: reservations ------------------------------------------------------------------------


async def test_r1_reserve_is_answered_by_status_reservation_and_limit() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        answer = await reserve(node, relay)
        assert answer.status == Status.OK
        assert answer.grant is not None
        assert 3590 <= answer.grant.expire - time.time() <= 3601
        assert answer.limit == CircuitLimit(120, 131072)
        voucher = open_voucher(answer.grant.voucher, relay=relay.swarm.peer, peer=node.peer, now=time.time())
        assert voucher.expiration == answer.grant.expire


async def test_r3_an_unlimited_relay_names_no_limit() -> None:
    async with network() as net:
        relay = await net.relay(circuit_seconds=0, circuit_bytes=0)
        assert (await reserve(await net.node(), relay)).limit is None


async def test_r2_the_addresses_are_the_relays_own_without_a_circuit() -> None:
    async with network() as net:
        relay = await net.relay()
        relay.swarm.set_external(parse("/ip4/8.8.8.8/tcp/4001"), True)
        relay.swarm.set_circuit_addrs(STRANGER, (parse(f"{relay.addr}/p2p-circuit"),))
        answer = await reserve(await net.node(), relay)
        assert answer.grant is not None
        assert [str(addr) for addr in answer.grant.addrs] == [f"/ip4/8.8.8.8/tcp/4001/p2p/{relay.swarm.peer}"]
        assert not any(is_relayed(addr) for addr in answer.grant.addrs)
        assert all(peer_of(addr) == relay.swarm.peer for addr in answer.grant.addrs)


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"reservations": 1}, Status.RESERVATION_REFUSED),
        ({"reservations_per_address": 1}, Status.RESERVATION_REFUSED),
        ({"address_burst": 1}, Status.RESERVATION_REFUSED),
    ],
)
async def test_r1_a_full_relay_refuses(limits: dict[str, int], status: Status) -> None:
    async with network() as net:
        relay = await net.relay(**limits)
        assert (await reserve(await net.node(), relay)).status == Status.OK
        answer = await reserve(await net.node(), relay)
        assert (answer.status, answer.grant) == (status, None)
        assert sum(relay.service.refused.values()) == 1


async def test_r1_access_rules_refuse_with_permission_denied() -> None:
    async with network() as net:
        outsider = await net.node()
        denied = Access(deny=Rules.parse([str(outsider.swarm.identity)]))
        relay = await net.relay(denied)
        assert (await reserve(outsider, relay)).status == Status.PERMISSION_DENIED
        assert (await reserve(await net.node(), relay)).status == Status.OK
        _, answer = await connect_raw(outsider, relay, STRANGER)
        assert answer.status == Status.PERMISSION_DENIED


async def test_access_rules_by_network_see_the_socket_address() -> None:
    async with network() as net:
        relay = await net.relay(Access(allow=Rules.parse(["11.0.0.0/8"])))
        assert (await reserve(await net.node(), relay)).status == Status.PERMISSION_DENIED


async def test_r5_a_reservation_ends_with_the_last_direct_connection() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        first = await node.swarm.dial(relay.addr)
        second = await node.swarm.dial(relay.addr, fresh=True)
        assert (await hop(first, encode_reserve())).status == Status.OK
        first.abort("TEST")
        await relay.log.wait(ConnectionClosed)
        assert relay.service.stats().reservations == 1
        second.abort("TEST")
        await relay.log.wait(ConnectionClosed, 2)
        assert relay.service.stats().reservations == 0


async def test_r5_an_expired_reservation_answers_no_reservation() -> None:
    async with network() as net:
        relay = await net.relay(peer_burst=0, address_burst=0)
        target = await raw_target(net, relay)
        table = relay.service.reservations
        table.end(target.node.peer)
        # The same entry as the table would hold an hour later.
        table.reserve(target.node.peer, ip_address("127.0.0.1"), trio.current_time() - 3601, time.time())
        _, answer = await connect_raw(await net.node(), relay, target.node.peer)
        assert answer.status == Status.NO_RESERVATION
        assert relay.service.stats().reservations == 0


async def test_r12_reserve_is_for_the_authenticated_peer_whatever_the_message_says() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        forged = pb.HopMessage(type=0, peer=pb.PeerId(id=STRANGER.to_bytes())).SerializeToString()
        answer = await hop(await node.swarm.dial(relay.addr), forged)
        assert answer.grant is not None
        open_voucher(answer.grant.voucher, relay=relay.swarm.peer, peer=node.peer, now=time.time())
        now = trio.current_time()
        assert relay.service.reservations.holds(node.peer, now)
        assert not relay.service.reservations.holds(STRANGER, now)


# --- R7, R8, R9, R13: what is refused ---------------------------------------------------------------------


async def test_r7_no_reservation_and_no_connect_over_a_circuit() -> None:
    async with network() as net:
        outer, inner = await net.relay(), await net.relay()
        # The inner relay can itself be reached through the outer one.
        client = RelayClient(inner.swarm)
        await net.nursery.start(client.run)
        addr = (await client.reserve(outer.addr)).addrs[0]
        node = await net.node()
        relayed = await node.swarm.dial(addr)
        assert relayed.path == "relay"
        with pytest.raises(NegotiationFailed):
            await relayed.open_stream([HOP])
        assert inner.service.stats().reservations == 0


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"\xff\xff\xff", Status.MALFORMED_MESSAGE),
        (b"", Status.MALFORMED_MESSAGE),
        (encode_hop_answer(Status.OK), Status.UNEXPECTED_MESSAGE),
        (pb.HopMessage(type=1).SerializeToString(), Status.MALFORMED_MESSAGE),
        (encode_hop_connect(STRANGER), Status.NO_RESERVATION),
        (b"\x00" * 4096, Status.MALFORMED_MESSAGE),
    ],
    ids=["garbage", "empty", "status", "no peer", "unknown target", "zeros"],
)
async def test_r8_bad_requests_get_their_status(payload: bytes, status: Status) -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        connection = await node.swarm.dial(relay.addr)
        assert (await hop(connection, payload)).status == status
        assert (await hop(connection, encode_reserve())).status == Status.OK


@pytest.mark.parametrize(
    "prefix", [varint.encode(4097), b"\xff" * 8 + b"\x7f", b"\xff" * 12], ids=["4097", "2^63", "no end"]
)
async def test_f2_an_oversized_length_is_refused_before_its_bytes_come(prefix: bytes) -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        stream = await (await node.swarm.dial(relay.addr)).open_stream([HOP])
        await stream.send_all(prefix)
        assert decode_hop_answer(await read_message(stream)).status == Status.MALFORMED_MESSAGE


async def test_a_client_that_ends_without_a_request_is_answered_and_forgotten() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        stream = await (await node.swarm.dial(relay.addr)).open_stream([HOP])
        await stream.send_eof()
        await read_all(stream)
        assert (await reserve(node, relay)).status == Status.OK


async def test_a_mute_hop_stream_ends_by_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.service.REQUEST_TIMEOUT", 0.05)
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        stream = await (await node.swarm.dial(relay.addr)).open_stream([HOP])
        await read_all(stream)
        assert relay.service.refused == {"request_timeout": 1}


async def test_requests_under_way_are_bounded_for_each_peer() -> None:
    async with network() as net:
        relay, node, other = await net.relay(hop_streams_per_peer=2), await net.node(), await net.node()
        connection = await node.swarm.dial(relay.addr)
        mute = [await connection.open_stream([HOP]) for _ in range(2)]
        assert (await hop(connection, encode_reserve())).status == Status.RESOURCE_LIMIT_EXCEEDED
        assert (await reserve(other, relay)).status == Status.OK
        for stream in mute:
            await write_message(stream, encode_reserve())
            await read_message(stream)
        assert (await hop(connection, encode_reserve())).status == Status.OK


async def test_r13_connect_to_a_connected_peer_without_reservation() -> None:
    async with network() as net:
        relay, node, idle = await net.relay(), await net.node(), await net.node()
        await idle.swarm.dial(relay.addr)
        _, answer = await connect_raw(node, relay, idle.peer)
        assert answer.status == Status.NO_RESERVATION
        assert (await reserve(node, relay)).status == Status.OK


async def test_r9_addresses_in_connect_are_not_dialled() -> None:
    async with network() as net:
        relay, node, listener = await net.relay(), await net.node(), await net.node()
        (addr,) = await listener.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
        peer = pb.PeerId(id=listener.peer.to_bytes(), addrs=[addr.to_bytes()])
        payload = pb.HopMessage(type=1, peer=peer).SerializeToString()
        assert (await hop(await node.swarm.dial(relay.addr), payload)).status == Status.NO_RESERVATION
        assert listener.swarm.connections() == ()


async def test_a_circuit_to_oneself_is_refused() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        assert (await reserve(node, relay)).status == Status.OK
        _, answer = await connect_raw(node, relay, node.peer)
        assert answer.status == Status.PERMISSION_DENIED


async def test_r8_too_many_circuits_and_the_slot_comes_back() -> None:
    async with network() as net:
        relay = await net.relay(circuits_per_peer=1)
        near, _, source, target = await circuit(net, relay)
        _, answer = await connect_raw(source, relay, target.node.peer)
        assert answer.status == Status.RESOURCE_LIMIT_EXCEEDED
        near.abort()
        await relay.log.wait(CircuitClosed)
        _, answer = await connect_raw(source, relay, target.node.peer)
        assert answer.status == Status.OK


@pytest.mark.parametrize("status", [Status.CONNECTION_FAILED, Status.PERMISSION_DENIED, Status.UNEXPECTED_MESSAGE])
async def test_r8_a_target_that_refuses_is_reported_as_connection_failed(status: Status) -> None:
    async with network() as net:
        relay = await net.relay(circuits=1)
        target = await raw_target(net, relay, status=status)
        source = await net.node()
        for _ in range(2):  # the slot is free again after a refusal
            _, answer = await connect_raw(source, relay, target.node.peer)
            assert answer.status == Status.CONNECTION_FAILED


async def test_r8_a_target_that_answers_garbage_or_resets_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.service.STOP_ANSWER_TIMEOUT", 0.05)

    async def garbage(stream: Stream) -> None:
        await write_message(stream, b"\xff\xff")

    async def reset(stream: Stream) -> None:
        await trio.lowlevel.checkpoint()
        stream.abort()

    async def nothing(stream: Stream) -> None:
        await trio.lowlevel.checkpoint()

    async with network() as net:
        relay, source = await net.relay(), await net.node()
        for answer in (garbage, reset, nothing):
            target = await raw_target(net, relay, answer=answer)
            _, status = await connect_raw(source, relay, target.node.peer)
            assert status.status == Status.CONNECTION_FAILED
        assert len(relay.service.circuits) == 0


async def test_a_target_that_speaks_no_stop_is_reported_as_connection_failed() -> None:
    async with network() as net:
        relay, source, target = await net.relay(), await net.node(), await net.node(client=False)
        assert (await reserve(target, relay)).status == Status.OK
        _, answer = await connect_raw(source, relay, target.peer)
        assert answer.status == Status.CONNECTION_FAILED


async def test_connects_are_rate_limited() -> None:
    async with network() as net:
        relay, node = await net.relay(peer_burst=2), await net.node()
        statuses = [(await connect_raw(node, relay, STRANGER))[1].status for _ in range(3)]
        assert statuses == [Status.NO_RESERVATION, Status.NO_RESERVATION, Status.RESOURCE_LIMIT_EXCEEDED]


# --- R4, R10, R11: circuits -------------------------------------------------------------------------------


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
            assert relay.service._asking == {}

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
        registration = relay.swarm.registry.find(HOP, relayed=False)
        with trio.fail_after(5):
            while registration.total or any(one.streams for one in relay.swarm.connections()):
                await trio.testing.wait_all_tasks_blocked(0.001)
