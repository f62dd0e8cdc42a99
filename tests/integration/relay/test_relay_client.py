"""The relay client over loopback: reservations made, kept, renewed and lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.addresses import Multiaddr, is_relayed, parse, with_peer
from punchbridge.config import Limits, RelayClientLimits
from punchbridge.eventhub import EventHub
from punchbridge.events import Event, ReservationAccepted, ReservationLost
from punchbridge.identity import Identity, peer_text
from punchbridge.keys import KeyKind
from punchbridge.swarm.swarm import Swarm
from punchbridge.wire.circuit import Status, encode_hop_answer
from punchbridge_relay.program import RelayConfig
from punchbridge_relay.program import run as run_relay
from tests.support.identities import KINDS, identity_of
from tests.support.relay_lab import ECHO, Log, echo, fake_relay, grant, network

STRANGER = Identity.generate()


async def test_a_circuit_address_is_announced_only_after_the_relay_accepted() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        assert node.swarm.announced() == ()
        reservation = await node.relays.reserve(relay.addr)
        expected = f"{relay.addr}/p2p-circuit/p2p/{node.swarm.identity}"
        assert [str(addr) for addr in reservation.addrs] == [expected]
        assert [str(addr) for addr in node.swarm.announced()] == [f"{relay.addr}/p2p-circuit"]
        accepted = await node.log.wait(ReservationAccepted)
        assert accepted.addrs == (expected,)
        assert (accepted.limit_seconds, accepted.limit_bytes, accepted.renewed) == (120, 131072, False)
        assert node.relays.reservations() == (reservation,)


@pytest.mark.parametrize("kind", KINDS)
async def test_relay_and_peers_may_have_keys_of_any_kind(kind: KeyKind) -> None:
    """go-libp2p and js-libp2p make ECDSA and RSA keys as well; a voucher is signed with them like everything else."""
    async with network() as net:
        relay = await net.relay(identity=identity_of(kind))
        listener, dialer = await net.node(identity=identity_of(kind, 1)), await net.node()
        await listener.swarm.handle(ECHO, echo, max_streams=4, max_per_peer=4)
        reservation = await listener.relays.reserve(relay.addr)
        connection = await dialer.swarm.dial(reservation.addrs[0])
        assert (connection.peer, connection.relay) == (identity_of(kind, 1).peer_id, identity_of(kind).peer_id)


async def test_listening_on_a_circuit_address_is_a_reservation() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        addrs = await node.swarm.listen(parse(f"{relay.addr}/p2p-circuit"))
        assert all(is_relayed(addr) for addr in addrs)
        again = await node.swarm.reserve(relay.addr)
        assert again.addrs == addrs
        assert len(node.log.of(ReservationAccepted)) == 1


async def test_release_withdraws_the_address() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        node.relays.release(relay.swarm.peer)
        with trio.fail_after(5):
            while node.swarm.announced():
                await trio.testing.wait_all_tasks_blocked()
        assert node.relays.reservations() == ()


async def test_several_relays_at_once() -> None:
    async with network() as net:
        first, second, listener, dialer = await net.relay(), await net.relay(), await net.node(), await net.node()
        listener.relays.keep([first.addr, second.addr])
        await listener.log.wait(ReservationAccepted, 2)
        await listener.swarm.handle(ECHO, echo, max_streams=4, max_per_peer=4)
        for relay in (first, second):
            connection = await dialer.swarm.dial(parse(f"{relay.addr}/p2p-circuit/p2p/{listener.swarm.identity}"))
            assert connection.relay == relay.swarm.peer
        assert len(dialer.swarm.connections(listener.peer)) == 2


async def test_several_addresses_of_one_relay_are_one_reservation() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        dead = parse(f"/ip4/127.0.0.1/tcp/1/p2p/{relay.swarm.identity}")
        node.relays.keep([dead, relay.addr])
        accepted = await node.log.wait(ReservationAccepted)
        tail = f"/p2p-circuit/p2p/{node.swarm.identity}"
        assert accepted.addrs == (f"{dead}{tail}", f"{relay.addr}{tail}")
        assert len(node.relays.reservations()) == 1
        assert relay.service.stats().reservations == 1


async def test_a_second_connection_carries_the_reservation_on() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        (first,) = node.swarm.connections(relay.swarm.peer)
        await node.swarm.dial(relay.addr, fresh=True)
        first.abort("TEST")
        await node.log.wait(ReservationAccepted, where=lambda event: event.renewed)
        assert node.log.of(ReservationLost) == []
        assert relay.service.stats().reservations == 1


async def test_a_dropped_connection_is_reported_and_made_again() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        await node.relays.reserve(relay.addr)
        (connection,) = node.swarm.connections(relay.swarm.peer)
        connection.abort("TEST")
        lost = await node.log.wait(ReservationLost)
        assert (lost.code, lost.relay) == ("CONNECTION_LOST", peer_text(relay.swarm.peer))
        assert 0 < lost.retry_in < 1
        await node.log.wait(ReservationAccepted, 2)
        assert [is_relayed(addr) for addr in node.swarm.announced()] == [True]


async def test_the_reservation_comes_back_after_a_restart_of_the_relay() -> None:
    async with network() as net:
        node, identity = await net.node(), Identity.generate()
        ready: list[Multiaddr] = []

        async def live(listen: Multiaddr, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                config = RelayConfig(identity=identity, listen=(listen,), autonat=False)
                async with trio.open_nursery() as nursery:
                    service = await nursery.start(run_relay, config, EventHub())
                    ready.append(service._swarm.listen_addrs()[0])
                    task_status.started(scope)

        scope = await net.nursery.start(live, parse("/ip4/127.0.0.1/tcp/0"))
        addr = ready[0]
        await node.relays.reserve(with_peer(addr, identity.peer_id))
        scope.cancel()
        await node.log.wait(ReservationLost)
        assert node.swarm.announced() == ()
        # At least one try fails while the relay is away.
        await node.log.wait(ReservationLost, 2)
        await net.nursery.start(live, addr)
        await node.log.wait(ReservationAccepted, 2)


async def test_renewal_comes_before_the_expiry() -> None:
    async with network() as net:
        _, addr = await fake_relay(net, grant(0), grant(3600))
        node = await net.node(limits=Limits(relay_client=RelayClientLimits(lease_least=0.2)))
        await node.relays.reserve(addr)
        renewed = await node.log.wait(ReservationAccepted, 2)
        assert renewed.renewed
        assert node.log.of(ReservationLost) == []


async def test_a_renewal_that_fails_is_tried_again_and_lost_only_at_the_expiry() -> None:
    limits = Limits(relay_client=RelayClientLimits(lease_least=1.0, refused_wait=0.1))
    async with network() as net:
        refusal = encode_hop_answer(Status.RESERVATION_REFUSED)
        _, addr = await fake_relay(net, grant(0), refusal)
        node = await net.node(limits=limits)
        started = trio.current_time()
        await node.relays.reserve(addr)
        lost = await node.log.wait(ReservationLost)
        assert lost.code == "RESERVATION_REFUSED"
        assert trio.current_time() - started > 0.5
        assert node.swarm.announced() == ()


async def test_who_asks_for_a_reservation_that_is_lost_at_once_gets_the_next_one() -> None:
    """Which of the two tasks runs first after the acceptance is left to chance: the keeper's, or the caller's."""
    async with network() as net:
        relay = await net.relay(reservations_per_address=0)
        for _ in range(12):
            node = await net.node()

            def hang_up(event: Event, swarm: Swarm = node.swarm, log: Log = node.log) -> None:
                if isinstance(event, ReservationAccepted) and not log.of(ReservationLost):
                    for connection in swarm.connections(relay.swarm.peer):
                        connection.abort("TEST")

            node.swarm.events.subscribe(hang_up)
            assert (await node.relays.reserve(relay.addr)).relay == relay.swarm.peer
            await node.log.wait(ReservationAccepted, 2)


async def test_keep_goes_on_trying_and_says_what_is_wrong() -> None:
    async with network() as net:
        relay, node = await net.relay(reservations=1), await net.node()
        first = await net.node()
        await first.relays.reserve(relay.addr)
        node.relays.keep([relay.addr])
        lost = await node.log.wait(ReservationLost)
        assert lost.code == "RESERVATION_REFUSED"
        assert "use another relay" in lost.message
        assert 2.5 <= lost.retry_in <= 60
        assert node.swarm.announced() == ()
