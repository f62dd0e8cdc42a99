"""Where a relay sees the ends of a circuit (R16): who is told, whose word is taken, and how far a punch goes by it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
import trio

from punchbridge.access.policy import NOBODY, Access
from punchbridge.addresses import Multiaddr, parse, without_peer
from punchbridge.config import ANYONE, Limits, PunchLimits
from punchbridge.errors import BridgeError
from punchbridge.events import ConnectionOpened, PunchFailed, PunchStarted
from punchbridge.identity import Identity
from punchbridge.transport.base import Connection
from tests.support.punch_lab import QUICK, Peer, lie, open_peer, open_relay
from tests.support.swarms import LOOPBACK

Ends = tuple[Connection, Connection]
ONCE = replace(QUICK, attempts=1)
ELSEWHERE = "/ip4/127.0.0.5/tcp/9"
"""Nobody listens there, and no relay sees anybody there."""


async def circuit(relay: Multiaddr, dialer: Peer, listener: Peer, *, named: bool = True) -> Ends:
    """Both ends of a circuit through a relay that the dialer's user named, or that somebody told it of."""
    await listener.host.swarm.reserve(relay)
    target = parse(f"{relay}/p2p-circuit/p2p/{listener.peer.to_base58()}")
    ours = await (dialer.host.dial(target) if named else dialer.host.swarm.dial(target))
    for number in count(1):
        opened = await listener.record.wait(ConnectionOpened, number)
        theirs = listener.host.swarm.connection(opened.connection)
        if theirs is not None and theirs.path == "relay" and theirs.peer == dialer.peer:
            return ours, theirs
    raise AssertionError("no circuit")


def at_relay(peer: Peer, relay: Multiaddr) -> Multiaddr:
    """The address from which a peer is connected to the relay."""
    [connection] = [c for c in peer.host.swarm.connections() if without_peer(relay) == c.remote]
    return connection.local


async def test_r16_each_end_is_told_where_the_relay_sees_the_other() -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer(None) as dialer:
        ours, theirs = await circuit(relay, dialer, listener)
        assert ours.attested == at_relay(listener, relay)
        assert theirs.attested == at_relay(dialer, relay)


async def test_a_relay_that_the_user_did_not_name_attests_nothing() -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer(None) as dialer:
        ours, theirs = await circuit(relay, dialer, listener, named=False)
        assert ours.attested is None
        assert theirs.attested == at_relay(dialer, relay)  # the listener's user named it: it holds a reservation there


async def test_a_direct_connection_is_attested_by_nobody() -> None:
    async with open_peer(None) as listener, open_peer(None) as dialer:
        addr = listener.host.swarm.listen_addrs()[0]
        connection = await dialer.host.swarm.dial(addr, expected=listener.peer)
        assert connection.attested is None


@pytest.mark.parametrize(("named", "most"), [(True, 400), (False, 16)])
async def test_only_an_attested_ip_is_dialled_beyond_the_bound_for_strangers(named: bool, most: int) -> None:
    """The listener names a port of its own IP where nobody listens: each dial of the dialer is refused at once."""
    async with open_relay() as relay, open_peer(ONCE) as listener, open_peer(ONCE) as dialer:
        lie(listener, "/ip4/127.0.0.1/tcp/9")
        await circuit(relay, dialer, listener, named=named)
        dialled = refusals(await dialer.record.wait(PunchFailed))
        assert dialled <= most
        assert (dialled > 16) == named


async def test_an_ip_that_the_relay_does_not_attest_gets_few_dials_from_either_side() -> None:
    policy = replace(QUICK, attempts=3)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer(policy) as dialer:
        for peer in (listener, dialer):
            lie(peer, ELSEWHERE)
        await circuit(relay, dialer, listener)
        for peer in (listener, dialer):
            last = await peer.record.wait(PunchFailed, 3)
            counts = [refusals(failed) for failed in peer.record.of(PunchFailed)]
            assert counts == [16, 1, 1]  # given up, and the verdict stays
            assert {failed.code for failed in peer.record.of(PunchFailed)} == {"RESET_BY_NAT"}
            assert last.final


async def test_fresh_peer_ids_of_one_address_share_the_dials_for_strangers() -> None:
    bounds = Limits(punch=PunchLimits(stranger_origin_dials=20, stranger_origin_interval=1000.0))
    async with open_relay() as relay, open_peer(ONCE, limits=bounds) as listener:
        told: list[PunchFailed] = []
        lie(listener, ELSEWHERE)
        for _ in range(3):
            async with open_peer(ONCE) as stranger:
                lie(stranger, ELSEWHERE)
                await circuit(relay, stranger, listener)
                told.append(await listener.record.wait(PunchFailed, len(told) + 1))
        assert [refusals(failed) for failed in told] == [16, 4, 0]
        assert "no relay of ours attests" in told[-1].message
        assert listener.host.swarm.refusals.counts["punch_dials"] == 2


async def test_a_caller_on_no_list_is_attested_for_nothing() -> None:
    me = Identity.generate()
    async with open_relay() as relay, open_peer() as listener, open_peer(identity=me) as dialer:
        _, theirs = await circuit(relay, dialer, listener)
        candidates = listener.puncher.candidates
        assert candidates.attested(theirs) == {"127.0.0.1"}
        listener.host.swarm.gater.access = NOBODY
        assert candidates.attested(theirs) == frozenset()
        listener.host.swarm.gater.access = Access.of([me.peer_id])
        assert candidates.attested(theirs) == {"127.0.0.1"}


async def test_a_network_is_denied_over_a_relay_too_and_is_allowed_by_its_own_address_alone() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        gater = listener.host.swarm.gater
        ours, theirs = await circuit(relay, dialer, listener)
        gater.access = Access.of(["127.0.0.0/8"])
        assert not gater.listed(theirs)
        gater.access = Access.of(ANYONE, ["11.0.0.0/8"])
        assert gater.listed(theirs)
        gater.access = Access.of(ANYONE, ["127.0.0.0/8"])
        assert not gater.listed(theirs)
        with trio.fail_after(10):
            await theirs.closed.wait()
            await ours.closed.wait()  # else it would be dialled again by what is left of this one
        with pytest.raises(BridgeError):  # nor does it come in again
            await (await dialer.host.swarm.dial(parse(f"{relay}/p2p-circuit/p2p/{listener.peer}"))).ping()
        assert listener.host.swarm.refusals.counts["denied"] == 1


async def test_the_attested_ip_is_the_last_resort_for_a_peer_whose_addresses_may_not_be_dialled() -> None:
    async with open_relay() as relay, open_peer(ONCE) as listener, open_peer(ONCE, listen=(LOOPBACK,)) as dialer:
        port = str(dialer.host.swarm.listen_addrs()[0]).rpartition("/")[2]
        lie(dialer, f"/ip4/169.254.7.7/tcp/{port}")
        await circuit(relay, dialer, listener)
        started = await listener.record.wait(PunchStarted)
        assert started.remote_candidates == (f"/ip4/127.0.0.1/tcp/{port}",)


def refusals(failed: PunchFailed) -> int:
    """How many dials of an attempt were reset."""
    [told] = [one for one in failed.seen if one.startswith("ECONNREFUSED")] or ["x0"]
    return int(told.partition("x")[2] or 1)
