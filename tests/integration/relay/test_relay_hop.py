"""The relay's side of circuit v2 over loopback sockets with raw messages: reservations and refusals, row by row."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest
import trio

from punchbridge.access.policy import Access
from punchbridge.addresses import is_relayed, parse, peer_of
from punchbridge.behaviours.relay_client import RelayClient
from punchbridge.config import ANYONE
from punchbridge.errors import BridgeError, NegotiationFailed, StreamReset
from punchbridge.events import ConnectionClosed
from punchbridge.identity import Identity, peer_text
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire import messages as pb
from punchbridge.wire import varint
from punchbridge.wire.circuit import (
    HOP,
    CircuitLimit,
    Status,
    decode_hop_answer,
    encode_hop_answer,
    encode_hop_connect,
    encode_reserve,
    encode_stop_answer,
)
from punchbridge.wire.voucher import open_voucher
from punchbridge_relay.events import CircuitClosed
from punchbridge_relay.limits import HopLimits
from tests.support.relay_lab import (
    circuit,
    connect_raw,
    hop,
    network,
    raw_target,
    read_all,
    reserve,
)

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
        ({"address_burst": 1, "address_interval": 3600}, Status.RESERVATION_REFUSED),
    ],
)
async def test_r1_a_full_relay_refuses(limits: dict[str, Any], status: Status) -> None:
    async with network() as net:
        relay = await net.relay(**limits)
        assert (await reserve(await net.node(), relay)).status == Status.OK
        answer = await reserve(await net.node(), relay)
        assert (answer.status, answer.grant) == (status, None)
        assert sum(relay.service.refused.values()) == 1


async def test_r1_a_closed_relay_lets_only_the_listed_reserve_and_anybody_connect() -> None:
    async with network() as net:
        member, outsider = await net.node(), await net.node()
        relay = await net.relay(Access.of([member.swarm.peer]))
        assert (await reserve(outsider, relay)).status == Status.PERMISSION_DENIED
        assert (await reserve(member, relay)).status == Status.OK
        _, answer = await connect_raw(outsider, relay, STRANGER)
        assert answer.status == Status.NO_RESERVATION


async def test_r1_connecting_can_be_closed_too() -> None:
    async with network() as net:
        member, friend, outsider = await net.node(), await net.node(), await net.node()
        relay = await net.relay(Access.of([member.swarm.peer]), connect=Access.of([friend.swarm.peer]))
        _, answer = await connect_raw(outsider, relay, STRANGER)
        assert answer.status == Status.PERMISSION_DENIED
        for node in (member, friend):
            _, answer = await connect_raw(node, relay, STRANGER)
            assert answer.status == Status.NO_RESERVATION


async def test_who_is_denied_is_cut_right_after_the_handshake() -> None:
    async with network() as net:
        foe = await net.node()
        relay = await net.relay(Access.of(ANYONE, [foe.swarm.peer]))
        connection = await foe.swarm.dial(relay.addr)
        with trio.fail_after(10):
            await connection.closed.wait()
        assert relay.service.refused["denied"] == 1


async def test_a_denied_network_is_cut_before_the_handshake() -> None:
    async with network() as net:
        relay = await net.relay(Access.of(ANYONE, ["127.0.0.0/8"]))
        with pytest.raises(BridgeError):
            await (await net.node()).swarm.dial(relay.addr)
        assert relay.service.refused["denied"] == 1


async def test_a_reservation_ends_when_its_holder_is_struck_out() -> None:
    async with network() as net:
        member = await net.node()
        relay = await net.relay(Access.of([member.swarm.peer]))
        assert (await reserve(member, relay)).status == Status.OK
        relay.swarm.gater.access = Access.of([Identity.generate().peer_id])
        assert relay.service.stats().reservations == 0
        assert (await reserve(member, relay)).status == Status.PERMISSION_DENIED


async def test_circuits_end_when_either_end_is_struck_out() -> None:
    async with network() as net:
        relay = await net.relay(connect=Access(), circuit_seconds=0, circuit_bytes=0)
        calls, called, source, target = await circuit(net, relay)
        stays, other, guest, host = await circuit(net, relay)
        members = [node.peer for node in (source, target.node, guest, host.node)]
        relay.swarm.gater.access = Access.of(members)
        await calls.send_all(b"both are listed")
        assert await called.receive_some(64) == b"both are listed"
        relay.swarm.gater.access = Access.of(members[1:])  # who called may open no circuit now
        closed = await relay.log.wait(CircuitClosed)
        assert (closed.source, closed.reason) == (peer_text(source.peer), "NOT_ALLOWED")
        for end in (calls, called):
            with pytest.raises(StreamReset):
                await read_all(end)
        await stays.send_all(b"this one goes on")
        assert await other.receive_some(64) == b"this one goes on"
        relay.swarm.gater.access = Access.of(members[:3])  # who was called may not be called here any more
        closed = await relay.log.wait(CircuitClosed, 2)
        assert (closed.target, closed.reason) == (peer_text(host.node.peer), "NOT_ALLOWED")


async def test_a_circuit_that_was_asked_for_before_its_target_was_struck_out_is_not_joined() -> None:
    async with network() as net:
        relay = await net.relay()

        async def change_and_accept(stream: Stream) -> None:
            relay.swarm.gater.access = Access.of([STRANGER])
            await write_message(stream, encode_stop_answer(Status.OK))

        target = await raw_target(net, relay, answer=change_and_accept)
        stream, _ = await connect_raw(await net.node(client=False), relay, target.node.peer)
        assert (await relay.log.wait(CircuitClosed)).reason == "NOT_ALLOWED"
        with pytest.raises(StreamReset):
            await read_all(stream)


async def test_strangers_of_a_closed_relay_go_after_a_while() -> None:
    async with network() as net:
        member, outsider = await net.node(), await net.node()
        relay = await net.relay(Access.of([member.swarm.peer]), hop=HopLimits(stranger_seconds=0.2))
        stays, goes = await member.swarm.dial(relay.addr), await outsider.swarm.dial(relay.addr)
        with trio.fail_after(10):
            await goes.closed.wait()
        assert not stays.closed.is_set()


async def test_a_stranger_stays_for_its_circuit_and_not_for_other_streams() -> None:
    async with network() as net:
        caller, holder = await net.node(), await net.node()
        relay = await net.relay(hop=HopLimits(stranger_seconds=0.4))
        target = await raw_target(net, relay)
        relay.swarm.gater.access = Access.of([target.node.peer])
        _, answer = await connect_raw(caller, relay, target.node.peer)
        assert answer.status == Status.OK
        calls, holds = caller.swarm.connections(relay.swarm.peer)[0], await holder.swarm.dial(relay.addr)
        stream = await holds.open_stream([HOP])
        await stream.send_all(b"\x7f")
        with trio.fail_after(10):
            await holds.closed.wait()
        assert not calls.closed.is_set()


async def test_access_rules_by_network_see_the_socket_address() -> None:
    async with network() as net:
        relay = await net.relay(Access.of(["11.0.0.0/8"]))
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
        forged = pb.HopMessage(type=pb.HopMessage.RESERVE, peer=pb.PeerId(id=STRANGER.to_bytes())).SerializeToString()
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
        (pb.HopMessage(type=pb.HopMessage.CONNECT).SerializeToString(), Status.MALFORMED_MESSAGE),
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


async def test_a_mute_hop_stream_ends_by_its_deadline() -> None:
    async with network() as net:
        relay, node = await net.relay(hop=HopLimits(request_timeout=0.05)), await net.node()
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
        payload = pb.HopMessage(type=pb.HopMessage.CONNECT, peer=peer).SerializeToString()
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


async def test_r8_a_target_that_answers_garbage_or_resets_or_nothing() -> None:
    async def garbage(stream: Stream) -> None:
        await write_message(stream, b"\xff\xff")

    async def reset(stream: Stream) -> None:
        await trio.lowlevel.checkpoint()
        stream.abort()

    async def nothing(stream: Stream) -> None:
        await trio.lowlevel.checkpoint()

    async with network() as net:
        relay, source = await net.relay(hop=HopLimits(stop_answer_timeout=0.05)), await net.node()
        for answer in (garbage, reset, nothing):
            target = await raw_target(net, relay, answer=answer)
            _, status = await connect_raw(source, relay, target.node.peer)
            assert status.status == Status.CONNECTION_FAILED
        assert len(relay.service.circuits) == 0


async def test_a_target_that_comes_again_is_asked_there_while_its_old_connection_is_silent() -> None:
    """A NAT that lost its state leaves the newest connection dead for everybody but the peer behind it."""
    asked: list[int] = []

    async def only_on_the_next(stream: Stream) -> None:
        asked.append(stream.connection.id)
        if stream.connection.id != asked[0]:
            await write_message(stream, encode_stop_answer(Status.OK))

    async with network() as net:
        relay, source = await net.relay(), await net.node()
        target = await raw_target(net, relay, answer=only_on_the_next)
        async with trio.open_nursery() as nursery:
            answers: list[Status] = []

            async def ask() -> None:
                _, answer = await connect_raw(source, relay, target.node.peer)
                answers.append(Status(answer.status))

            nursery.start_soon(ask)
            with trio.fail_after(5):
                await target.circuit()
                assert not answers
                await target.node.swarm.dial(relay.addr, fresh=True)
                await target.circuit()
        assert answers == [Status.OK]
        assert len(asked) == 2
        assert not relay.service._offers._waiting


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
