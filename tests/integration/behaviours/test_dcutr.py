"""DCUtR between real hosts on loopback: success, every refusal, roles, cancellation."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from punchbridge.addresses import decode, parse, with_peer
from punchbridge.behaviours.dcutr import Dcutr
from punchbridge.config import Limits, PunchLimits, TcpLimits
from punchbridge.errors import DirectRequired, NegotiationFailed, StreamReset
from punchbridge.events import Event, P2pFallback, P2pUpgrade, PunchFailed, PunchStarted, PunchSucceeded
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.transport.muxed.connection import MuxedConnection as Muxed
from punchbridge.transport.tcp.sockets import listen_socket
from punchbridge.wire.dcutr import PROTOCOL, Answerer, Schedule
from punchbridge.wire.identify import PUSH, encode_info
from punchbridge.wire.messages import MAX_MESSAGE
from tests.support.punch_lab import QUICK, lie, open_peer, open_relay, over_relay, say_connect, tell_the_truth
from tests.support.swarms import open_descriptors


async def test_two_hosts_become_direct_over_a_relay() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        relayed = await over_relay(relay, dialer, listener)
        assert relayed.path == "relay"
        with trio.fail_after(10):
            theirs = await listener.puncher.wait_direct(dialer.peer)
            ours = await dialer.puncher.wait_direct(listener.peer)
            done_there = await listener.record.wait(PunchSucceeded)
            done_here = await dialer.record.wait(PunchSucceeded)
        assert (done_there.side, done_here.side) == ("initiator", "responder")
        assert (done_there.attempt, done_here.attempt) == (1, 1)
        assert (done_here.local, done_here.remote) == (done_there.remote, done_there.local)
        assert (ours.role, theirs.role) == ("initiator", "responder")
        assert str(ours.remote) in (await dialer.record.wait(PunchStarted)).remote_candidates
        assert (await listener.record.wait(P2pUpgrade)).peer == dialer.peer.to_base58()
        assert (await dialer.record.wait(P2pUpgrade)).local == done_here.local
        assert not relayed.closed.is_set()


@pytest.mark.parametrize("reversal", [False, True])
async def test_a_socket_of_a_punch_has_the_options_of_its_node(reversal: bool) -> None:
    policy, bounds = replace(QUICK, reversal=reversal), Limits(tcp=TcpLimits(user_timeout=7.0))
    async with (
        open_relay() as relay,
        open_peer(policy, limits=bounds) as listener,
        open_peer(policy, limits=bounds) as dialer,
    ):
        await over_relay(relay, dialer, listener)
        with trio.fail_after(10):
            both = await listener.puncher.wait_direct(dialer.peer), await dialer.puncher.wait_direct(listener.peer)
        for connection in both:
            raw = connection._raw  # type: ignore[attr-defined]
            assert raw.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000


async def test_the_peer_s_announced_address_is_dialled_before_any_exchange() -> None:
    policy = replace(QUICK, reversal=True)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        done = await listener.record.wait(PunchSucceeded)
        assert (done.how, done.attempt, done.side) == ("dial", 0, "initiator")
        upgrade = await dialer.record.wait(P2pUpgrade)
        assert (upgrade.local, upgrade.remote) == (done.remote, done.local)
        assert dialer.record.of(PunchStarted) == []
        assert listener.record.of(PunchStarted) == []


async def test_a_peer_that_does_not_punch_cannot_be_dialled_back() -> None:
    """--no-p2p on the dialer alone: a listener that punches, whoever made it, is told no address on the circuit."""
    policy = replace(QUICK, reversal=True)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer(None) as dialer:
        await over_relay(relay, dialer, listener)
        assert (await listener.record.wait(PunchFailed)).code == "PEER_UNSUPPORTED"
        [theirs] = listener.host.swarm.connections(dialer.peer)
        assert theirs.path == "relay"
        assert theirs.identify is not None
        assert theirs.identify.listen == ()


async def test_a_dead_announced_address_does_not_hold_the_punch_up() -> None:
    policy = replace(QUICK, reversal=True)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer() as dialer:
        # Nothing answers there, so the dial stays outstanding until it is given up.
        dialer.host.swarm.set_external(parse("/ip4/10.255.255.1/tcp/9"), True)
        await over_relay(relay, dialer, listener)
        with trio.fail_after(5):
            await listener.puncher.wait_direct(dialer.peer)


async def test_no_punching_means_no_dcutr_message_and_no_protocol() -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer(None) as dialer:
        relayed = await over_relay(relay, dialer, listener)
        with trio.fail_after(5):
            await relayed.identified.wait()
        assert relayed.identify is not None
        assert PROTOCOL not in relayed.identify.protocols
        [theirs] = [c for c in listener.host.swarm.connections(dialer.peer) if c.path == "relay"]
        with pytest.raises(NegotiationFailed):
            await listener.host.swarm.open_stream(theirs, [PROTOCOL])
        assert (listener.record.of(PunchStarted), listener.record.of(PunchFailed)) == ([], [])


async def test_a_listener_that_does_not_punch_sends_no_dcutr_message_to_a_dialer_that_would() -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        [theirs] = [c for c in listener.host.swarm.connections(dialer.peer) if c.path == "relay"]
        with trio.fail_after(10):
            await theirs.identified.wait()  # when one that punches sends its CONNECT
            # What it sent before would have come before these.
            assert len([rtt async for rtt in listener.host.ping.ping(theirs, 3)]) == 3
        assert not dialer.puncher.active(listener.peer)
        assert dialer.puncher.last_outcome(listener.peer) is None
        assert (dialer.record.of(PunchStarted), dialer.record.of(PunchFailed)) == ([], [])
        assert (listener.record.of(PunchStarted), listener.record.of(PunchFailed)) == ([], [])


async def test_a_peer_without_dcutr_is_named_so_and_tried_again_later() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer(None) as dialer:
        await over_relay(relay, dialer, listener)
        failed = await listener.record.wait(PunchFailed)
        assert (failed.code, failed.final, failed.retry_in) == ("PEER_UNSUPPORTED", True, QUICK.retry)
        assert (await listener.record.wait(P2pFallback)).code == "PEER_UNSUPPORTED"
        with trio.fail_after(5), pytest.raises(DirectRequired) as caught:
            await listener.puncher.wait_direct(dialer.peer)
        assert caught.value.verdict.code == "PEER_UNSUPPORTED"


async def test_a_peer_that_tells_of_dcutr_after_its_refusal_is_punched_at_once() -> None:
    """go registers the protocol with its first public address, up to 5 s after the circuit, and pushes identify."""
    async with (
        open_relay() as relay,
        open_peer() as listener,
        open_peer(None) as dialer,
        trio.open_nursery() as nursery,
    ):
        relayed = await over_relay(relay, dialer, listener)
        assert (await listener.record.wait(PunchFailed)).code == "PEER_UNSUPPORTED"
        swarm = dialer.host.swarm
        await nursery.start(Dcutr(swarm, QUICK).run)
        stream = await relayed.open_stream((PUSH,))
        protocols = swarm.registry.supported(relayed)
        assert PROTOCOL in protocols
        info = encode_info(swarm.identity, agent="", protocols=protocols, listen=(), observed=None)
        await write_message(stream, info)
        await stream.aclose()
        with trio.fail_after(10):  # the pause is 30 s
            await listener.record.wait(PunchSucceeded)
        nursery.cancel_scope.cancel()


async def test_the_next_run_follows_after_the_pause() -> None:
    policy = replace(QUICK, retry=1.0, retry_most=1.5)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer(None) as dialer:
        await over_relay(relay, dialer, listener)
        await listener.record.wait(PunchFailed, 3)
        pauses = [failed.retry_in for failed in listener.record.of(PunchFailed)]
        assert pauses[:3] == [1.0, 1.5, 1.5]


async def test_private_addresses_are_neither_offered_nor_dialled_without_leave() -> None:
    async with (
        open_relay() as relay,
        open_peer(allow_private=False) as listener,
        open_peer(allow_private=False) as dialer,
    ):
        await over_relay(relay, dialer, listener)
        failed = await listener.record.wait(PunchFailed)
        assert (failed.code, failed.attempt, failed.final) == ("NO_CANDIDATES", 1, True)
        assert failed.local_candidates == ()


async def test_a_peer_with_nothing_to_offer_ends_each_attempt_by_name() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer(allow_private=False) as dialer:
        await over_relay(relay, dialer, listener)
        await listener.record.wait(PunchFailed, 3)
        failures = listener.record.of(PunchFailed)
        assert [failed.code for failed in failures] == ["NO_REMOTE_CANDIDATES"] * 3
        assert [failed.attempt for failed in failures] == [1, 2, 3]
        assert [failed.final for failed in failures] == [False, False, True]
        await dialer.record.wait(PunchFailed, 3)
        theirs = dialer.record.of(PunchFailed)
        assert {(failed.code, failed.side) for failed in theirs} == {("NO_CANDIDATES", "responder")}
        assert [failed.final for failed in theirs] == [False, False, True]
        assert [failed.retry_in for failed in theirs] == [None, None, QUICK.retry]


async def test_an_address_that_is_known_by_the_next_attempt_is_still_in_time() -> None:
    """Who waits for a direct connection is not answered by the attempt that had nothing to offer."""
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:

        def learn(event: Event) -> None:
            if isinstance(event, PunchFailed):
                tell_the_truth(dialer)

        lie(dialer)
        dialer.host.swarm.events.subscribe(learn)
        direct: list[str] = []

        async def wait() -> None:
            direct.append((await dialer.puncher.wait_direct(listener.peer)).path)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await over_relay(relay, dialer, listener)
        assert direct == ["direct"]
        [failed] = dialer.record.of(PunchFailed)
        assert (failed.code, failed.attempt, failed.final) == ("NO_CANDIDATES", 1, False)
        assert (await dialer.record.wait(PunchSucceeded)).attempt == 2


async def test_a_peer_with_nothing_to_offer_is_asked_to_dial_us_where_we_can_be_reached() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer(None) as dialer:

        async def answer(stream: Stream) -> None:
            machine = Answerer()
            raw = machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
            assert isinstance(raw, tuple)
            await write_message(stream, machine.answer(()))
            assert isinstance(machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time()), Schedule)
            addr = decode(raw[0])
            assert addr is not None
            await dialer.host.swarm.dial(with_peer(addr, listener.peer), fresh=True)
            await stream.aclose()

        await dialer.host.swarm.handle(PROTOCOL, answer, max_streams=1, max_per_peer=1)
        await over_relay(relay, dialer, listener)
        done = await listener.record.wait(PunchSucceeded)
        assert (done.how, done.side) == ("dial", "initiator")
        assert listener.record.of(PunchFailed) == []


async def test_dead_candidates_end_in_resets_after_three_exchanges() -> None:
    """The dialler's real address is hidden: both sides dial closed ports of this machine."""
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        for peer in (listener, dialer):
            lie(peer, "/ip4/127.0.0.1/tcp/1")
        await over_relay(relay, dialer, listener)
        with trio.fail_after(20):
            await listener.record.wait(PunchFailed, 3)
            await dialer.record.wait(PunchFailed, 3)
        for peer in (listener, dialer):
            failures = peer.record.of(PunchFailed)
            assert [failed.code for failed in failures] == ["RESET_BY_NAT"] * 3
            assert [failed.final for failed in failures] == [False, False, True]
            assert failures[0].seen[0].startswith("ECONNREFUSEDx")
            assert (await peer.record.wait(P2pFallback)).code == "RESET_BY_NAT"
        best = listener.host.swarm.best(dialer.peer)
        assert best is not None
        assert best.path == "relay"


async def test_a_stranger_at_the_candidate_is_the_wrong_peer() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer, open_peer(None) as stranger:
        lie(listener, str(stranger.host.swarm.listen_addrs()[0]))
        lie(dialer, "/ip4/127.0.0.1/tcp/1")
        await over_relay(relay, dialer, listener)
        failed = await dialer.record.wait(PunchFailed)
        assert failed.code == "WRONG_PEER"
        assert stranger.host.swarm.connections(dialer.peer) == ()


async def test_a_direct_connection_by_other_means_ends_the_punch_as_a_success() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        for peer in (listener, dialer):
            lie(peer, "/ip4/127.0.0.2/tcp/1")
        await over_relay(relay, dialer, listener)
        await listener.record.wait(PunchStarted)
        await dialer.record.wait(PunchStarted)
        await dialer.host.swarm.dial(
            with_peer(listener.host.swarm.listen_addrs()[0], listener.peer), expected=listener.peer, fresh=True
        )
        done = await listener.record.wait(PunchSucceeded)
        assert (done.how, done.attempt) == ("dial", 0)
        assert (await dialer.record.wait(P2pUpgrade)).attempt == 0


async def test_losing_the_direct_connection_falls_back_and_punches_again() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        with trio.fail_after(10):
            direct = await listener.puncher.wait_direct(dialer.peer)
            await dialer.record.wait(P2pUpgrade)
        direct.abort("TEST")
        for peer in (listener, dialer):
            assert (await peer.record.wait(P2pFallback)).code == "DIRECT_LOST"
            await peer.record.wait(P2pUpgrade, 2)


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
