"""DCUtR between real hosts on loopback: success, every refusal, roles, cancellation."""

from __future__ import annotations

import pytest
import trio
from support.punch_lab import QUICK, open_peer, open_relay, over_relay

from bridge.events import P2pUpgrade, PunchFailed, PunchStarted, PunchSucceeded


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
