"""Both sides dial each other over relays: each has a circuit from the other, and each would open exchanges."""

from __future__ import annotations

from dataclasses import replace

import trio

from punchbridge.addresses import Multiaddr, parse
from punchbridge.events import P2pUpgrade, PunchFailed
from punchbridge.identity import Identity
from punchbridge.transport.base import Connection, Stream
from punchbridge.wire.dcutr import PROTOCOL
from tests.support.punch_lab import QUICK, Peer, open_peer, open_relay, say_connect, tell_the_truth

ONCE = replace(QUICK, attempts=1)
"""A run ends with its first refusal."""


def two_identities() -> tuple[Identity, Identity]:
    """The one with the smaller peer id, which gives way, first."""
    one, two = sorted((Identity.generate(), Identity.generate()), key=lambda identity: identity.peer_id.to_bytes())
    return one, two


async def circuit(relay: Multiaddr, dialer: Peer, listener: Peer) -> Connection:
    return await dialer.host.swarm.dial(
        parse(f"{relay}/p2p-circuit/p2p/{listener.peer.to_base58()}"), expected=listener.peer, fresh=True
    )


async def test_a_run_between_two_attempts_answers_the_peer_s_exchange() -> None:
    """The side with the larger id has nothing on its way, so that it has nothing to refuse the peer for."""
    small, large = two_identities()
    async with (
        open_relay() as relay,
        open_peer(ONCE, identity=small) as smaller,
        open_peer(replace(QUICK, pause_least=30.0, pause_most=30.0), identity=large) as larger,
    ):
        for peer in (smaller, larger):
            await peer.host.swarm.reserve(relay)
        smaller.puncher.candidates.offered = ()
        await circuit(relay, smaller, larger)
        await larger.record.wait(PunchFailed)  # the peer offers nothing; the next attempt is half a minute away
        tell_the_truth(smaller)
        await circuit(relay, larger, smaller)
        with trio.fail_after(20):
            for peer in (smaller, larger):
                await peer.record.wait(P2pUpgrade)
        assert [failed.code for failed in smaller.record.of(PunchFailed)] == ["NO_CANDIDATES"]
        assert [failed.code for failed in larger.record.of(PunchFailed)] == ["NO_REMOTE_CANDIDATES"]


async def test_a_refusal_by_a_peer_whose_own_exchange_comes_is_no_failure() -> None:
    small, large = two_identities()
    async with (
        open_relay() as relay,
        open_peer(ONCE, identity=small) as smaller,
        open_peer(None, identity=large) as larger,
    ):
        refused = trio.Event()

        async def refuse(stream: Stream) -> None:
            stream.reset()
            refused.set()

        await larger.host.swarm.handle(PROTOCOL, refuse, max_streams=1, max_per_peer=1)
        for peer in (smaller, larger):
            await peer.host.swarm.reserve(relay)
        await circuit(relay, smaller, larger)
        await circuit(relay, larger, smaller)
        [back] = [one for one in larger.host.swarm.connections(smaller.peer) if one.inbound]
        with trio.fail_after(20):
            await refused.wait()
            assert len([rtt async for rtt in larger.host.ping.ping(back, 2)]) == 2  # the refusal is there by now
            assert await say_connect(larger, back)
        assert smaller.record.of(PunchFailed) == []
