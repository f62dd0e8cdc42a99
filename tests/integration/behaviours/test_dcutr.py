"""DCUtR between real hosts on loopback: how they become direct, and what keeps them from it."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import trio
import trio.testing

from punchbridge.addresses import decode, parse, with_peer
from punchbridge.behaviours.dcutr import Dcutr
from punchbridge.config import Limits, TcpLimits
from punchbridge.errors import DirectRequired, NegotiationFailed
from punchbridge.events import Event, P2pFallback, P2pUpgrade, PunchFailed, PunchStarted, PunchSucceeded
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.dcutr import PROTOCOL, Answerer, Schedule
from punchbridge.wire.identify import PUSH, encode_info
from punchbridge.wire.messages import MAX_MESSAGE
from tests.support.punch_lab import QUICK, lie, open_peer, open_relay, over_relay, tell_the_truth


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
