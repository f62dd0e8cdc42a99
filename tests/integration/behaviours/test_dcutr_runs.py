"""Runs of punches have an identity, and who waits for a direct connection is answered by a run that he waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from punchbridge.errors import DirectRequired
from punchbridge.events import P2pFallback, PunchFailed, PunchSucceeded
from punchbridge.identity import Identity
from punchbridge.local.paths import wait_direct
from punchbridge.verdict import Code
from tests.support.punch_lab import QUICK, Peer, lie, open_peer, open_relay, over_relay, tell_the_truth

ONCE = replace(QUICK, attempts=1)
REFUSED = "/ip4/127.0.0.2/tcp/1"
"""Nobody listens there: a dial is refused at once."""


def both_refused(*peers: Peer) -> None:
    for peer in peers:
        lie(peer, REFUSED)


async def test_a_verdict_of_an_earlier_run_does_not_answer_for_the_next_one() -> None:
    """The peer starts again, under the same identity and behind a mended NAT: its punch succeeds."""
    identity = Identity.generate()
    async with open_relay() as relay, open_peer(ONCE) as dialer:
        async with open_peer(ONCE, identity=identity) as first:
            both_refused(first, dialer)
            relayed = await over_relay(relay, dialer, first)
            failed = await dialer.record.wait(PunchFailed)
            assert (failed.code, failed.final) == ("RESET_BY_NAT", True)
        tell_the_truth(dialer)
        with trio.fail_after(30):
            await relayed.closed.wait()
            async with open_peer(ONCE, identity=identity) as second:
                await over_relay(relay, dialer, second)
                connection = await wait_direct(dialer.host, second.peer, 20.0)
                assert connection.path == "direct"
                await dialer.record.wait(PunchSucceeded)


async def test_the_run_under_way_answers_with_its_own_verdict_and_the_pause_after_it() -> None:
    """On both sides: the answering one knows the opener's pause as well."""
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        both_refused(listener, dialer)
        await over_relay(relay, dialer, listener)
        for here, there in ((dialer, listener), (listener, dialer)):
            with trio.fail_after(20), pytest.raises(DirectRequired) as caught:
                await wait_direct(here.host, there.peer, 20.0)
            attempts = here.record.of(PunchFailed)
            assert [failed.retry_in for failed in attempts] == [None, None, QUICK.retry]
            assert {failed.run for failed in attempts} == {attempts[0].run}
            assert attempts[0].run > 0
            # One value, made where the failure was seen, reaches both events and the error.
            assert caught.value.verdict is attempts[-1].verdict
            assert (await here.record.wait(P2pFallback)).verdict is attempts[-1].verdict
            assert str(caught.value).endswith(f"RESET_BY_NAT: {attempts[-1].message}")


async def test_between_two_runs_the_last_verdict_answers_only_who_cannot_await_the_next_run() -> None:
    policy = replace(ONCE, retry=4.0)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer(policy) as dialer:
        both_refused(listener, dialer)
        await over_relay(relay, dialer, listener)
        first = await dialer.record.wait(PunchFailed)
        with pytest.raises(DirectRequired) as at_once:
            await wait_direct(dialer.host, listener.peer, 0.5)
        assert at_once.value.verdict.run == first.run
        with trio.fail_after(30), pytest.raises(DirectRequired) as later:
            await wait_direct(dialer.host, listener.peer, 25.0)
        assert later.value.verdict.run > first.run
        assert later.value.verdict.code is Code.RESET_BY_NAT


async def test_runs_of_one_opener_are_counted_apart() -> None:
    policy = replace(ONCE, retry=1.0)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer(policy) as dialer:
        both_refused(listener, dialer)
        await over_relay(relay, dialer, listener)
        for peer in (listener, dialer):
            with trio.fail_after(20):
                await peer.record.wait(PunchFailed, 3)
            runs = [failed.run for failed in peer.record.of(PunchFailed)[:3]]
            assert runs == sorted(set(runs))


async def test_a_foreign_opener_punches_once_on_a_circuit_so_that_no_next_run_is_promised() -> None:
    async with (
        open_relay() as relay,
        open_peer(ONCE, agent="rust-libp2p/0.1", sessions=False) as listener,
        open_peer(ONCE) as dialer,
    ):
        both_refused(listener, dialer)
        await over_relay(relay, dialer, listener)
        assert (await dialer.record.wait(PunchFailed)).retry_in is None
