"""DCUtR over QUIC, alone and beside TCP, between real hosts on loopback."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import trio

from punchbridge.addresses import endpoint_of, parse
from punchbridge.config import Limits, NatLimits, PunchLimits, QuicLimits
from punchbridge.events import ConnectionOpened, P2pUpgrade, PunchFailed, PunchStarted, PunchSucceeded
from tests.support.built import NOT_BUILT
from tests.support.punch_lab import QUICK, Peer, lie, open_peer, open_relay, over_relay
from tests.support.swarms import LOOPBACK, UDP

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

BOTH = (LOOPBACK, UDP)
DEAD_TCP, DEAD_UDP = "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"
ONCE = replace(QUICK, attempts=1)


def at(peer: Peer, proto: str) -> str:
    """The address at which a peer listens."""
    found = (addr for addr in peer.host.swarm.listen_addrs() if (e := endpoint_of(addr)) and e.proto == proto)
    return str(next(found))


async def observed(peer: Peer, count: int = 2) -> None:
    """Until a peer's relay has told it both of its addresses."""
    number = peer.puncher.candidates.observed.number
    while len(peer.host.swarm.observed.addresses()) < count:
        number = await peer.puncher.candidates.observed.beyond(number)


async def test_two_hosts_become_direct_over_quic_alone() -> None:
    async with (
        open_relay(listen=(UDP,)) as relay,
        open_peer(listen=(UDP,)) as listener,
        open_peer(listen=(UDP,)) as dialer,
    ):
        relayed = await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            theirs = await listener.puncher.wait_direct(dialer.peer)
            ours = await dialer.puncher.wait_direct(listener.peer)
            there = await listener.record.wait(PunchSucceeded)
            here = await dialer.record.wait(PunchSucceeded)
            assert (await dialer.record.wait(P2pUpgrade)).transport == "quic"
            assert (await listener.record.wait(P2pUpgrade)).transport == "quic"
        assert (ours.transport, theirs.transport) == ("quic", "quic")
        assert (ours.role, theirs.role) == ("initiator", "responder")
        assert (there.side, there.how, here.side, here.how) == ("initiator", "accept", "responder", "connect")
        assert (here.local, here.remote) == (there.remote, there.local)
        assert here.transports == there.transports == {"quic": "DIRECT"}
        assert (here.attempt, there.attempt) == (1, 1)
        assert ours.punched
        assert theirs.punched
        assert not relayed.closed.is_set()


async def test_one_connect_names_the_addresses_of_both_transports_and_both_are_tried() -> None:
    async with open_relay(listen=BOTH) as relay, open_peer(listen=BOTH) as listener, open_peer(listen=BOTH) as dialer:
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            done = await dialer.record.wait(PunchSucceeded)
            told = (await dialer.record.wait(PunchStarted)).remote_candidates
        assert {at(listener, "tcp"), at(listener, "udp")} <= set(told)
        assert done.transports[done.transport] == "DIRECT"
        assert set(done.transports) == {"tcp", "quic"}


async def test_with_a_node_of_ours_the_slower_connection_stays_too() -> None:
    async with open_relay(listen=BOTH) as relay, open_peer(listen=BOTH) as listener, open_peer(listen=BOTH) as dialer:
        await over_relay(relay, dialer, listener)
        for peer, other in ((listener, dialer), (dialer, listener)):
            with trio.fail_after(20):
                while len(direct(peer, other)) < 2:
                    await peer.record.wait(ConnectionOpened, len(peer.record.of(ConnectionOpened)) + 1)
                await peer.record.wait(PunchSucceeded)
                await peer.record.wait(P2pUpgrade)
            assert direct(peer, other) == {"tcp", "quic"}
            assert len(peer.record.of(PunchSucceeded)) == 1
            assert [one.session for one in peer.record.of(P2pUpgrade)].count(None) == 1


def direct(peer: Peer, other: Peer) -> set[str]:
    connections = peer.host.swarm.connections(other.peer)
    return {one.transport for one in connections if one.path == "direct" and not one.closed.is_set()}


async def test_where_no_datagram_passes_tcp_is_punched() -> None:
    async with open_relay(listen=BOTH) as relay, open_peer(listen=BOTH) as listener, open_peer(listen=BOTH) as dialer:
        for peer in (listener, dialer):
            lie(peer, at(peer, "tcp"), DEAD_UDP)
        muted(dialer)
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            done = await dialer.record.wait(PunchSucceeded)
        assert (done.transport, done.transports) == ("tcp", {"tcp": "DIRECT", "quic": "PENDING"})


async def test_where_no_syn_passes_quic_is_punched() -> None:
    async with open_relay(listen=BOTH) as relay, open_peer(listen=BOTH) as listener, open_peer(listen=BOTH) as dialer:
        for peer in (listener, dialer):
            lie(peer, DEAD_TCP, at(peer, "udp"))
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            done = await dialer.record.wait(PunchSucceeded)
        assert (done.transport, done.transports) == ("quic", {"tcp": "PENDING", "quic": "DIRECT"})


def muted(peer: Peer) -> None:
    """Its QUIC hears no datagrams of a punch."""
    quic = peer.host.swarm.ports.quic
    assert quic is not None
    for place in quic._places:
        place.endpoint._stray = lambda stray: None  # type: ignore[method-assign]


async def test_each_transport_s_reason_is_told_when_both_fail() -> None:
    async with (
        open_relay(listen=BOTH) as relay,
        open_peer(ONCE, listen=BOTH) as listener,
        open_peer(ONCE, listen=BOTH) as dialer,
    ):
        for peer in (listener, dialer):
            lie(peer, DEAD_TCP, DEAD_UDP)
            muted(peer)
        await over_relay(relay, dialer, listener)
        for peer in (listener, dialer):
            with trio.fail_after(20):
                failed = await peer.record.wait(PunchFailed)
            assert failed.code == "RESET_BY_NAT"
            assert failed.transports == {"tcp": "RESET_BY_NAT", "quic": "UDP_BLOCKED"}
        assert "udp:SILENT" in dialer.record.of(PunchFailed)[0].seen


async def test_quic_alone_that_meets_silence_is_blocked() -> None:
    async with (
        open_relay(listen=(UDP,)) as relay,
        open_peer(ONCE, listen=(UDP,)) as listener,
        open_peer(ONCE, listen=(UDP,)) as dialer,
    ):
        for peer in (listener, dialer):
            lie(peer, DEAD_UDP)
            muted(peer)
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            failed = await listener.record.wait(PunchFailed)
        assert (failed.code, failed.transports) == ("UDP_BLOCKED", {"quic": "UDP_BLOCKED"})


async def test_the_dialler_aims_at_where_the_datagrams_come_from() -> None:
    """The listener's NAT has another port for the dialler than the one that the relay has seen."""
    async with (
        open_relay(listen=(UDP,)) as relay,
        open_peer(listen=(UDP,)) as listener,
        open_peer(listen=(UDP,)) as dialer,
    ):
        lie(listener, DEAD_UDP)
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            done = await dialer.record.wait(PunchSucceeded)
        assert (done.attempt, done.transport, done.remote) == (1, "quic", at(listener, "udp"))
        assert done.dials == 2


async def test_datagrams_for_an_address_that_no_relay_attests_are_few() -> None:
    victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    victim.bind(("127.0.0.2", 0))
    victim.setblocking(False)
    policy, limits = replace(ONCE, attempt_timeout=3.0), Limits(punch=PunchLimits(datagram_most=0.02))
    async with (
        open_relay(listen=BOTH) as relay,
        open_peer(policy, listen=BOTH, limits=limits) as listener,
        open_peer(policy, listen=BOTH, limits=limits) as dialer,
    ):
        for peer in (listener, dialer):
            lie(peer, f"/ip4/127.0.0.2/udp/{victim.getsockname()[1]}/quic-v1")
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            await listener.record.wait(PunchFailed)
        sizes = []
        while True:
            try:
                sizes.append(len(victim.recv(2048)))
            except BlockingIOError:
                break
    victim.close()
    datagrams = [size for size in sizes if size == PunchLimits().datagram_bytes]
    # From the listener; the dialler's are those of one dial, sent again by the engine.
    assert len(datagrams) == PunchLimits().stranger_dials_per_attempt
    assert len(sizes) - len(datagrams) <= 6


async def test_a_stranger_at_the_candidate_is_the_wrong_peer() -> None:
    async with (
        open_relay(listen=(UDP,)) as relay,
        open_peer(ONCE, listen=(UDP,)) as listener,
        open_peer(ONCE, listen=(UDP,)) as dialer,
        open_peer(None, listen=(UDP,)) as stranger,
    ):
        lie(listener, at(stranger, "udp"))
        muted(dialer)
        lie(dialer, DEAD_UDP)
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            failed = await dialer.record.wait(PunchFailed)
        assert failed.code == "WRONG_PEER"
        assert stranger.host.swarm.connections(dialer.peer) == ()


async def test_the_peer_s_announced_quic_address_is_dialled_before_any_exchange() -> None:
    policy = replace(QUICK, reversal=True)
    async with (
        open_relay(listen=(UDP,)) as relay,
        open_peer(policy, listen=(UDP,)) as listener,
        open_peer(listen=(UDP,)) as dialer,
    ):
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            done = await listener.record.wait(PunchSucceeded)
            upgrade = await dialer.record.wait(P2pUpgrade)
        assert (done.how, done.attempt, done.side, done.transport) == ("dial", 0, "initiator", "quic")
        assert (upgrade.local, upgrade.remote) == (done.remote, done.local)
        assert dialer.record.of(PunchStarted) == []


async def test_a_relay_sees_both_ports_of_who_dials_it_over_one_transport() -> None:
    async with open_relay(listen=BOTH) as relay, open_peer(listen=BOTH) as peer:
        await peer.host.swarm.reserve(relay)
        with trio.fail_after(20):
            await observed(peer)
        assert {str(addr) for addr in peer.host.swarm.observed.addresses()} == {at(peer, "tcp"), at(peer, "udp")}


async def test_a_relay_that_is_silent_over_quic_shows_that_udp_is_blocked() -> None:
    """It answers over TCP, and says that it speaks QUIC too."""
    limits = Limits(quic=QuicLimits(handshake_timeout=0.3))
    async with (
        open_relay(announce=(parse(DEAD_UDP),)) as relay,
        open_peer(ONCE, listen=BOTH, limits=limits) as listener,
        open_peer(ONCE, listen=BOTH, limits=limits) as dialer,
    ):
        for peer in (listener, dialer):
            lie(peer, DEAD_TCP, DEAD_UDP)
            muted(peer)
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            failed = await dialer.record.wait(PunchFailed)
        assert failed.transports == {"tcp": "RESET_BY_NAT", "quic": "UDP_BLOCKED"}
        assert "udp:relay-silent" in failed.seen


async def test_the_second_connection_to_a_relay_comes_back_while_the_first_one_stands() -> None:
    limits = Limits(nat=NatLimits(other_settle=0.05))
    async with open_relay(listen=BOTH) as relay, open_peer(listen=BOTH, limits=limits) as peer:
        await peer.host.swarm.reserve(relay)
        with trio.fail_after(20):
            await observed(peer)
            for lost in ("quic", "tcp"):
                number = len(peer.record.of(ConnectionOpened))
                [gone] = [one for one in peer.host.swarm.connections() if one.transport == lost]
                gone.abort("TEST")
                assert (await peer.record.wait(ConnectionOpened, number + 1)).transport == lost
