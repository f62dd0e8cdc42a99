"""What DCUtR refuses, gives up and waits for: exchanges that break off, roles that collide, sockets that are silent."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from punchbridge.addresses import parse, with_peer
from punchbridge.config import Limits, PunchLimits
from punchbridge.errors import StreamReset
from punchbridge.events import P2pUpgrade, PunchFailed, PunchStarted, PunchSucceeded
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import write_message
from punchbridge.transport.muxed.connection import MuxedConnection as Muxed
from punchbridge.transport.tcp.sockets import listen_socket
from punchbridge.wire.dcutr import PROTOCOL
from tests.support.punch_lab import QUICK, lie, open_peer, open_relay, over_relay, say_connect, tell_the_truth
from tests.support.swarms import open_descriptors


async def test_the_relay_lost_before_the_answer() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer(None) as dialer:
        arrived = trio.Event()

        async def mute(stream: Stream) -> None:
            arrived.set()
            await stream.receive_some()
            await trio.sleep_forever()

        await dialer.host.swarm.handle(PROTOCOL, mute, max_streams=4, max_per_peer=4)
        relayed = await over_relay(relay, dialer, listener)
        await arrived.wait()
        relayed.abort("TEST")
        failed = await listener.record.wait(PunchFailed)
        assert (failed.code, failed.final, failed.retry_in) == ("RELAY_LOST", True, None)


@pytest.mark.parametrize("data", [b"", b"\x08\xac\x02", b"\xff\xff"])
async def test_a_malformed_connect_is_a_protocol_failure_on_the_answering_side(data: bytes) -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        [theirs] = [c for c in listener.host.swarm.connections(dialer.peer) if c.path == "relay"]
        stream = await listener.host.swarm.open_stream(theirs, [PROTOCOL])
        with trio.fail_after(5):
            await write_message(stream, data)
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert (await dialer.record.wait(PunchFailed)).code == "PROTOCOL"


async def test_only_the_side_that_was_dialled_may_open_an_exchange() -> None:
    """D13: the dialler of the relayed connection, and anybody on a direct one, is refused without a word."""
    async with open_relay() as relay, open_peer() as listener, open_peer(None) as dialer:
        relayed = await over_relay(relay, dialer, listener)
        direct = await dialer.host.swarm.dial(
            with_peer(listener.host.swarm.listen_addrs()[0], listener.peer), fresh=True
        )
        for connection in (relayed, direct):
            with trio.fail_after(5), pytest.raises(StreamReset):
                await say_connect(dialer, connection)


async def test_stopping_in_the_middle_leaves_no_socket() -> None:
    before = open_descriptors()
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        for peer in (listener, dialer):
            lie(peer, "/ip4/127.0.0.1/tcp/1")
        await over_relay(relay, dialer, listener)
        await dialer.record.wait(PunchStarted)
    [failed] = dialer.record.of(PunchFailed)  # the one that stops first
    assert (failed.code, failed.final) == ("CANCELLED", False)
    assert {name for name, what in open_descriptors().items() if what.startswith("socket")} <= set(before)


async def test_both_dial_each_other_over_relays_and_one_gives_way() -> None:
    """Two relayed connections, one each way: both open exchanges; they end on a direct connection all the same."""
    async with open_relay() as relay, open_peer() as one, open_peer() as two:
        for peer in (one, two):
            await peer.host.swarm.reserve(relay)
        async with trio.open_nursery() as nursery:
            for mine, theirs in ((one, two), (two, one)):
                target = parse(f"{relay}/p2p-circuit/p2p/{theirs.peer.to_base58()}")
                nursery.start_soon(partial(mine.host.swarm.dial, target, fresh=True))
        with trio.fail_after(15):
            await one.puncher.wait_direct(two.peer)
            await two.puncher.wait_direct(one.peer)
            await one.record.wait(P2pUpgrade)
            await two.record.wait(P2pUpgrade)


async def test_the_third_exchange_with_a_go_peer_swaps_the_roles() -> None:
    """As go-libp2p does; both of ours count and agree, since each sees a go agent."""
    go = "github.com/libp2p/go-libp2p@v0.43"
    async with open_relay() as relay, open_peer(agent=go) as listener, open_peer(agent=go) as dialer:
        for peer in (listener, dialer):
            lie(peer, "/ip4/127.0.0.2/tcp/1")
        await over_relay(relay, dialer, listener)
        await listener.record.wait(PunchFailed, 2)
        await dialer.record.wait(PunchFailed, 2)
        for peer in (listener, dialer):
            tell_the_truth(peer)
        with trio.fail_after(15):
            theirs = await listener.puncher.wait_direct(dialer.peer)
            done = await listener.record.wait(PunchSucceeded)
        assert done.attempt == 3
        assert theirs.role == "initiator"


async def test_a_silent_socket_is_given_up_and_dialled_anew() -> None:
    """The first TCP connection stands and says nothing, as after a NAT lost track of it; the second one works."""
    policy, limits = replace(QUICK, attempt_timeout=5.0), Limits(punch=PunchLimits(socket_patience=0.2))
    async with (
        open_relay() as relay,
        open_peer(policy, limits=limits) as listener,
        open_peer(policy, limits=limits) as dialer,
    ):
        mute = listen_socket(parse("/ip4/127.0.0.1/tcp/0"))
        lie(listener, f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}")
        lie(dialer, "/ip4/127.0.0.2/tcp/1")
        await over_relay(relay, dialer, listener)
        with trio.fail_after(10):
            accepted = [(await mute.accept())[0], (await mute.accept())[0]]
            await dialer.record.wait(PunchFailed)
        failed = dialer.record.of(PunchFailed)[0]
        assert failed.code == "BLACK_HOLED"
        assert any(word.startswith("SILENTx") for word in failed.seen)
        for sock in (mute, *accepted):
            sock.close()


async def test_an_event_for_each_attempt_in_order_on_both_sides() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        await listener.record.wait(P2pUpgrade)
        await dialer.record.wait(P2pUpgrade)
        for peer in (listener, dialer):
            kinds = [type(event) for event in peer.record.events if type(event).__name__.startswith(("Punch", "P2p"))]
            assert kinds == [PunchStarted, PunchSucceeded, P2pUpgrade]
            done = peer.record.of(PunchSucceeded)[0]
            assert 0 < done.elapsed_ms < 5000
            assert done.direct_rtt_ms is not None


async def test_the_initiators_first_frame_is_the_responders_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was sent with what our Noise message brought: no ping of our own has to come back first."""
    real = Muxed.ping

    async def ping(self: Muxed) -> float:
        if self.punched and self.role == "responder":
            await trio.sleep_forever()
        return await real(self)

    monkeypatch.setattr(Muxed, "ping", ping)
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        for peer in (listener, dialer):
            await peer.record.wait(P2pUpgrade)
            assert peer.record.of(PunchSucceeded)[0].direct_rtt_ms is not None


async def test_a_handshake_with_nothing_behind_it_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path died right after the Noise handshake: neither side claims a direct connection."""
    real = Muxed.run

    async def run(self: Muxed, *handlers: Any) -> None:
        await (self.closed.wait() if self.punched else real(self, *handlers))

    monkeypatch.setattr(Muxed, "run", run)
    policy, limits = replace(QUICK, attempts=1, attempt_timeout=0.5), Limits(punch=PunchLimits(upgrade_grace=0.2))
    async with (
        open_relay() as relay,
        open_peer(policy, limits=limits) as listener,
        open_peer(policy, limits=limits) as dialer,
    ):
        await over_relay(relay, dialer, listener)
        for peer in (listener, dialer):
            await peer.record.wait(PunchFailed)
            assert (peer.record.of(PunchSucceeded), peer.record.of(P2pUpgrade)) == ([], [])


async def test_a_peer_cannot_keep_our_dials_busy() -> None:
    """Exchanges beyond the limit of a minute are reset before any dial."""
    limits = Limits(punch=PunchLimits(exchanges_per_minute=4))
    async with open_relay() as relay, open_peer(None) as listener, open_peer(limits=limits) as dialer:
        await over_relay(relay, dialer, listener)
        [theirs] = [c for c in listener.host.swarm.connections(dialer.peer) if c.path == "relay"]
        answers = 0
        with trio.fail_after(20):
            for _ in range(4 + 3):
                try:
                    await say_connect(listener, theirs)
                    answers += 1
                except StreamReset:
                    pass
                dialer.puncher.cancel(listener.peer)
                await dialer.puncher.wait_idle(listener.peer)
        assert answers == 4
