"""Circuits over loopback, out and in: their facts, limits, ends, refusals, and offers that are none."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.addresses import parse, with_peer
from punchbridge.config import Limits, MuxedLimits
from punchbridge.errors import (
    AddressError,
    AuthenticationFailed,
    BridgeError,
    NegotiationFailed,
    ProtocolViolation,
    RelayRefused,
    StreamReset,
    Unreachable,
)
from punchbridge.eventhub import EventHub
from punchbridge.events import ConnectionClosed, ReservationLost
from punchbridge.identity import Identity
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.upgrade import upgrade
from punchbridge.wire.circuit import (
    HOP,
    STOP,
    CircuitLimit,
    Status,
    decode_stop_answer,
    encode_hop_answer,
    encode_hop_connect,
    encode_stop_answer,
    encode_stop_connect,
)
from punchbridge_relay.events import CircuitClosed, RelayListening, RelayStats
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.program import RelayConfig
from punchbridge_relay.program import run as run_relay
from tests.support.relay_lab import ECHO, fake_relay, mute_relay, network, read_all

STRANGER = Identity.generate()


# --- circuits ---------------------------------------------------------------------------------------------


async def test_a_circuit_is_a_connection_with_its_facts_on_both_sides() -> None:
    async with network() as net:
        relay = await net.relay(circuit_seconds=60, circuit_bytes=1 << 20)
        dialer, listener, addr = await net.pair(relay)
        near = await dialer.swarm.dial(addr)
        (far,) = listener.swarm.connections(dialer.peer)
        limit = CircuitLimit(60, 1 << 20)
        assert (near.peer, near.path, near.relay, near.role) == (listener.peer, "relay", relay.swarm.peer, "initiator")
        assert (far.path, far.relay, far.role, far.inbound) == ("relay", relay.swarm.peer, "responder", True)
        assert (near.inbound, near.limit, far.limit) == (False, limit, limit)
        assert (near.transport, far.transport) == ("circuit", "circuit")
        assert near.remote == addr
        assert str(near.local) == str(far.local) == f"{relay.addr}/p2p-circuit"
        assert str(far.remote) == f"{relay.addr}/p2p-circuit/p2p/{dialer.swarm.identity}"
        stream = await near.open_stream([ECHO])
        await stream.send_all(b"over the relay")
        await stream.send_eof()
        assert await read_all(stream) == b"over the relay"


@pytest.mark.parametrize("side", ["dialer", "listener"])
async def test_closing_the_connection_ends_the_circuit(side: str) -> None:
    async with network() as net:
        relay = await net.relay()
        dialer, listener, addr = await net.pair(relay)
        near = await dialer.swarm.dial(addr)
        (far,) = listener.swarm.connections(dialer.peer)
        node, connection, other = (dialer, near, far) if side == "dialer" else (listener, far, near)
        await node.swarm.close(connection)
        await relay.log.wait(CircuitClosed)
        await other.closed.wait()
        assert len(relay.service.circuits) == 0
        for mine in (*dialer.swarm.connections(relay.swarm.peer), *listener.swarm.connections(relay.swarm.peer)):
            with trio.fail_after(5):
                while mine.streams:
                    await trio.testing.wait_all_tasks_blocked(0.001)


async def test_the_relays_limit_ends_the_connection_above_it() -> None:
    async with network() as net:
        relay = await net.relay(circuit_bytes=4096)
        dialer, _, addr = await net.pair(relay)
        connection = await dialer.swarm.dial(addr)
        stream = await connection.open_stream([ECHO])
        with pytest.raises(StreamReset):  # noqa: PT012 - whichever of the two meets the end first
            await stream.send_all(b"x" * 8192)
            await read_all(stream)
        await connection.closed.wait()
        assert (await relay.log.wait(CircuitClosed)).reason == "DATA_LIMIT"


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (Status.NO_RESERVATION, "the listener has no reservation at this relay; start it, or check the peer id"),
        (Status.CONNECTION_FAILED, "could not reach the listener"),
        (Status.RESOURCE_LIMIT_EXCEEDED, "wait and try again"),
        (Status.PERMISSION_DENIED, "access rules"),
        (Status.MALFORMED_MESSAGE, "use another relay"),
    ],
)
async def test_a_refused_circuit_says_what_to_do(status: Status, advice: str) -> None:
    async with network() as net:
        _, addr = await fake_relay(net, encode_hop_answer(status))
        node = await net.node()
        with pytest.raises(BridgeError, match=advice) as caught:
            await node.swarm.dial(parse(f"{addr}/p2p-circuit/p2p/{STRANGER}"))
        assert isinstance(caught.value, RelayRefused)
        assert caught.value.status == status.name


async def test_dialling_a_peer_without_reservation_through_a_real_relay() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        with pytest.raises(RelayRefused, match="check the peer id"):
            await node.swarm.dial(parse(f"{relay.addr}/p2p-circuit/p2p/{STRANGER}"))


async def test_bad_circuit_addresses() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        with pytest.raises(AddressError, match="names no target"):
            await node.relays.dial(parse(f"{relay.addr}/p2p-circuit"), None)
        with pytest.raises(AddressError, match="this node itself"):
            await node.swarm.dial(parse(f"{relay.addr}/p2p-circuit/p2p/{node.swarm.identity}"))
        with pytest.raises(AddressError, match="the relay itself"):
            await node.relays.dial(parse(f"{relay.addr}/p2p-circuit/p2p/{relay.swarm.identity}"), None)
        with pytest.raises(Unreachable, match="not connected to the relay"):
            await node.relays.dial(parse(f"/p2p/{STRANGER}/p2p-circuit/p2p/{relay.swarm.identity}"), None)


async def test_a_relay_on_ipv6() -> None:
    async with network() as net:
        relay = await net.relay(reservations_per_address=1)
        (addr,) = await relay.swarm.listen(parse("/ip6/::1/tcp/0"))
        relay.addr = with_peer(addr, relay.swarm.peer)
        dialer, _, target = await net.pair(relay)
        assert str(target).startswith("/ip6/::1/tcp/")
        assert (await dialer.swarm.dial(target)).path == "relay"
        other = await net.node()
        with pytest.raises(RelayRefused):  # the /64 has its one reservation
            await other.relays.reserve(relay.addr)


async def test_a_relay_known_by_its_id_alone_is_used_when_connected() -> None:
    async with network() as net:
        relay = await net.relay()
        dialer, listener, _ = await net.pair(relay)
        await dialer.swarm.dial(relay.addr)
        target = parse(f"/p2p/{relay.swarm.identity}/p2p-circuit/p2p/{listener.swarm.identity}")
        assert (await dialer.swarm.dial(target)).path == "relay"


async def test_an_impostor_behind_the_relay_is_refused() -> None:
    async with network() as net:
        relay, dialer, impostor = await net.relay(), await net.node(), await net.node()
        await impostor.relays.reserve(relay.addr)

        # A relay that joins us to another peer than the one we asked for: the end-to-end handshake notices.
        fake = await net.node(client=False)
        (addr,) = await fake.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))

        async def on_hop(stream: Stream) -> None:
            await read_message(stream)
            real = await fake.swarm.dial(relay.addr)
            near = await real.open_stream([HOP])
            await write_message(near, encode_hop_connect(impostor.peer))
            await read_message(near)
            await write_message(stream, encode_hop_answer(Status.OK))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pipe, stream, near)
                nursery.start_soon(_pipe, near, stream)

        await fake.swarm.handle(HOP, on_hop, max_streams=4, max_per_peer=4)
        with pytest.raises(AuthenticationFailed):
            await dialer.swarm.dial(parse(f"{with_peer(addr, fake.peer)}/p2p-circuit/p2p/{STRANGER}"))
        assert dialer.swarm.connections(impostor.peer) == ()


async def _pipe(reader: Stream, writer: Stream) -> None:
    try:
        while data := await reader.receive_some():
            await writer.send_all(data)
        await writer.send_eof()
    except (BridgeError, trio.BrokenResourceError, trio.ClosedResourceError):
        writer.abort()


async def test_a_cancelled_dial_leaves_no_stream() -> None:
    async with network() as net:
        mute, addr, asked = await mute_relay(net)
        node = await net.node()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.swarm.dial, parse(f"{addr}/p2p-circuit/p2p/{STRANGER}"))
            await asked.wait()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert node.swarm.connections(mute.peer)[0].streams == 0


# --- offers -----------------------------------------------------------------------------------------------


async def offer(stream: Stream, payload: bytes) -> int:
    await write_message(stream, payload)
    return decode_stop_answer(await read_message(stream)).status


async def test_r12_a_stop_from_a_stranger_is_refused() -> None:
    async with network() as net:
        relay, node, stranger = await net.relay(), await net.node(), await net.node(client=False)
        await node.relays.reserve(relay.addr)
        (addr,) = await node.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
        stream = await (await stranger.swarm.dial(addr)).open_stream([STOP])
        assert await offer(stream, encode_stop_connect(STRANGER.peer_id)) == Status.CONNECTION_FAILED


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"\xff\xff", Status.MALFORMED_MESSAGE),
        (b"\x08\x00", Status.MALFORMED_MESSAGE),
        (encode_stop_answer(Status.OK), Status.UNEXPECTED_MESSAGE),
    ],
    ids=["garbage", "no peer", "status"],
)
async def test_bad_offers_get_their_status(payload: bytes, status: Status) -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        stream = await relay.swarm.connections(node.peer)[0].open_stream([STOP])
        assert await offer(stream, payload) == status


async def test_an_offer_from_ourselves_is_refused() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        stream = await relay.swarm.connections(node.peer)[0].open_stream([STOP])
        assert await offer(stream, encode_stop_connect(node.peer)) == Status.CONNECTION_FAILED


async def test_no_offers_over_a_circuit() -> None:
    async with network() as net:
        relay = await net.relay()
        dialer, _, addr = await net.pair(relay)
        connection = await dialer.swarm.dial(addr)
        with pytest.raises(NegotiationFailed):
            await connection.open_stream([STOP])


async def test_an_accepted_offer_whose_initiator_never_speaks_ends() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node(limits=Limits(muxed=MuxedLimits(upgrade_timeout=1.0)))
        await node.relays.reserve(relay.addr)
        stream = await relay.swarm.connections(node.peer)[0].open_stream([STOP])
        assert await offer(stream, encode_stop_connect(STRANGER.peer_id)) == Status.OK
        with pytest.raises(StreamReset):
            await read_all(stream)
        assert len(node.swarm.connections()) == 1


async def test_the_initiator_must_be_who_the_relay_said() -> None:
    async with network() as net:
        relay, node, liar = await net.relay(), await net.node(), Identity.generate()
        await node.relays.reserve(relay.addr)
        stream = await relay.swarm.connections(node.peer)[0].open_stream([STOP])
        assert await offer(stream, encode_stop_connect(STRANGER.peer_id)) == Status.OK
        link = Link(stream, relay.addr, relay.addr, "relay", False)
        with pytest.raises(BridgeError):  # noqa: PT012 - the refusal may show in the handshake or right behind it
            connection = await upgrade(link, role="initiator", identity=liar, expected=node.peer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run, lambda stream, protocol: None, tuple)
                await connection.closed.wait()
            raise ProtocolViolation("closed behind the handshake")
        assert node.swarm.connections(liar.peer_id) == ()


async def test_the_relay_program_stops_in_good_order() -> None:
    async with network() as net:
        node = await net.node()
        seen: list[object] = []
        hub = EventHub()
        hub.subscribe(seen.append)
        config = RelayConfig(
            identity=Identity.generate(),
            listen=(parse("/ip4/127.0.0.1/tcp/0"),),
            limits=RelayLimits(circuit_seconds=0),
            autonat=False,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(run_relay, config, hub)
            (listening,) = [event for event in seen if isinstance(event, RelayListening)]
            await node.relays.reserve(parse(listening.addrs[0]))
            nursery.cancel_scope.cancel()
        last = [event for event in seen if isinstance(event, RelayStats)][-1]
        assert last.reservations == 1
        assert (await node.log.wait(ConnectionClosed)).reason == "CLOSED_BY_PEER"
        await node.log.wait(ReservationLost)
