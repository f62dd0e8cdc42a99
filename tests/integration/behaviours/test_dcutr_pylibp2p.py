"""The DCUtR exchange and punch with a stock py-libp2p host, on either side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.peer.peerinfo import PeerInfo
from libp2p.relay.circuit_v2.config import RelayRole
from libp2p.relay.circuit_v2.dcutr import DCUtRProtocol
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp import tcp
from multiaddr import Multiaddr

from punchbridge.addresses import parse, peer_of, without_peer
from punchbridge.events import P2pUpgrade, PunchStarted, PunchSucceeded
from punchbridge.wire.dcutr import Opener, Schedule
from tests.support.punch_lab import open_peer, open_relay
from tests.support.stock_circuits import Stock, stock
from tests.support.stock_host import ours, theirs


@pytest.fixture(autouse=True)
def whole_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stock host that is cancelled while it opens a socket leaves it open; a warning of that fails the test.

    It cancels its dials once ours has come through. Here a dial ends at once, so it may end before that is heeded.
    """
    opened = tcp._open_tcp_stream_from

    async def whole(host: str, port: int, source: tuple[str, int]) -> trio.SocketStream:
        with trio.CancelScope(shield=True):
            stream = await opened(host, port, source)
        return stream

    monkeypatch.setattr(tcp, "_open_tcp_stream_from", whole)


@asynccontextmanager
async def punching(peer: Stock) -> AsyncIterator[DCUtRProtocol]:
    """Runs the stock host's DCUtR."""
    protocol = DCUtRProtocol(peer.host)
    async with background_trio_service(protocol):
        await protocol.event_started.wait()
        yield protocol


async def test_our_listener_punches_a_stock_dialer(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = Opener.sync

    def late(self: Opener, now: float) -> tuple[bytes, Schedule]:
        """An uneven relay path. A stock listener takes accepted sockets as a server, so its dial has to come first."""
        data, schedule = sync(self, now)
        return data, Schedule(schedule.at + 0.5, schedule.rtt)

    monkeypatch.setattr(Opener, "sync", late)
    async with (
        open_relay() as relay,
        open_peer() as listener,
        stock(roles=RelayRole.CLIENT) as dialer,
        punching(dialer),
    ):
        reservation = await listener.host.swarm.reserve(relay)
        relay_peer = peer_of(relay)
        assert relay_peer is not None
        raw = await dialer.transport.dial_peer_info(
            PeerInfo(theirs(listener.peer), [Multiaddr(str(reservation.addrs[0]))]),
            relay_info=PeerInfo(theirs(relay_peer), [Multiaddr(str(without_peer(relay)))]),
        )
        await dialer.host.upgrade_outbound_connection(raw, theirs(listener.peer))
        with trio.fail_after(20):
            started = await listener.record.wait(PunchStarted)
            done = await listener.record.wait(PunchSucceeded)
            await listener.record.wait(P2pUpgrade)
        assert started.side == "initiator"
        assert str(without_peer(dialer.addr)) in started.remote_candidates
        assert done.attempt == 1
        direct = listener.host.swarm.best(ours(dialer.host.get_id()))
        assert direct is not None
        assert (direct.path, direct.role) == ("direct", "responder")


async def test_a_stock_listener_punches_our_dialer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def skip(_self: DCUtRProtocol, _peer: object) -> bool:
        return False  # its plain dial would reach our loopback listener, and no exchange would follow

    monkeypatch.setattr(DCUtRProtocol, "_try_unilateral_upgrade", skip)
    async with open_relay() as relay, open_peer() as dialer, stock() as listener, punching(listener):
        relay_peer = peer_of(relay)
        assert relay_peer is not None
        await listener.host.connect(PeerInfo(theirs(relay_peer), [Multiaddr(str(without_peer(relay)))]))
        stream = await listener.host.new_stream(theirs(relay_peer), [HOP])
        assert await listener.transport._make_reservation(stream, theirs(relay_peer))
        await dialer.host.swarm.dial(parse(f"{relay}/p2p-circuit/p2p/{listener.host.get_id()}"))
        with trio.fail_after(20):
            started = await dialer.record.wait(PunchStarted)
            done = await dialer.record.wait(PunchSucceeded)
        assert started.side == "responder"
        assert (done.side, done.attempt) == ("responder", 1)
        direct = dialer.host.swarm.best(ours(listener.host.get_id()))
        assert direct is not None
        assert (direct.path, direct.role) == ("direct", "initiator")
