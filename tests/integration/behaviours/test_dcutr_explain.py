"""Why a punch failed: what the observers of each IP version's NAT have to do with it, and which of them count."""

from __future__ import annotations

from dataclasses import replace

import trio

from punchbridge.addresses import parse
from punchbridge.behaviours.dcutr.attempts import Attempt
from punchbridge.behaviours.dcutr.explain import explain, gather
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.behaviours.nat.other import OtherTransport
from punchbridge.events import ObservedAddress, PunchSucceeded
from punchbridge.identity import Identity
from punchbridge.reach.nat import Mapping
from punchbridge.reach.observed import ObservedAddresses
from punchbridge.verdict import Code
from tests.support.punch_lab import QUICK, open_peer, open_relay, over_relay


def behind_a_symmetric_ipv4_nat(observed: ObservedAddresses) -> None:
    for number in (1, 2):
        observed.record(
            observer=f"11.0.0.{number}",
            observer_peer=Identity.generate().peer_id,
            local=parse("/ip4/192.168.1.2/tcp/4001"),
            observed=parse(f"/ip4/11.1.0.2/tcp/{40000 + number}"),
            now=float(number),
        )


def attempted(*addrs: str) -> Attempt:
    remote = tuple(map(parse, addrs))
    return Attempt(Identity.generate().peer_id, "initiator", 1, 0.0, remote=remote, tried={"tcp": None})


async def test_an_attempt_over_ipv6_is_not_explained_by_the_ipv4_nat() -> None:
    async with open_peer() as peer:
        swarm = peer.host.swarm
        behind_a_symmetric_ipv4_nat(swarm.observed)
        codes = {}
        for addr in ("/ip6/2607:f8b0::9/tcp/4001", "/ip4/11.9.9.9/tcp/4001"):
            attempt = attempted(addr)
            gather(attempt, swarm.observed)
            attempt.evidence.dials = 3  # and no answer to one of them
            with trio.fail_after(20):
                codes[addr[1:4]] = await explain(attempt, swarm.observed, SecondObserver(swarm), OtherTransport(swarm))
        assert codes == {"ip6": Code.SYN_FILTERED, "ip4": Code.MAPPING_DEPENDENT}


async def test_a_mapping_that_depends_explains_an_attempt_whatever_the_other_ip_version_s_is() -> None:
    async with open_peer() as peer:
        swarm = peer.host.swarm
        behind_a_symmetric_ipv4_nat(swarm.observed)
        attempt = attempted("/ip6/2607:f8b0::9/tcp/4001", "/ip4/11.9.9.9/tcp/4001", "/ip4/11.9.9.9/udp/4001/quic-v1")
        gather(attempt, swarm.observed)
        assert attempt.evidence.mapping is Mapping.ADDRESS_DEPENDENT
        assert attempt.udp.mapping is Mapping.UNKNOWN


async def test_each_transport_has_its_own_reason() -> None:
    async with open_peer() as peer:
        swarm = peer.host.swarm
        behind_a_symmetric_ipv4_nat(swarm.observed)
        attempt = attempted("/ip4/11.9.9.9/tcp/4001", "/ip4/11.9.9.9/udp/4001/quic-v1")
        attempt.tried["quic"] = None
        gather(attempt, swarm.observed)
        attempt.evidence.dials = attempt.udp.datagrams = 3
        with trio.fail_after(20):
            assert (
                await explain(attempt, swarm.observed, SecondObserver(swarm), OtherTransport(swarm))
                is Code.MAPPING_DEPENDENT
            )
        assert attempt.transports() == {"tcp": "MAPPING_DEPENDENT", "quic": "UDP_BLOCKED"}


async def test_a_peer_that_came_over_a_relay_is_no_observer_that_we_chose() -> None:
    """It announced where it wants to be dialled, and says what it likes of the connection that we made there."""
    policy = replace(QUICK, reversal=True)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        assert (await listener.record.wait(PunchSucceeded)).how == "dial"
        with trio.fail_after(10):
            while not any(one.observer == dialer.peer.to_base58() for one in listener.record.of(ObservedAddress)):
                await listener.record.wait(ObservedAddress, len(listener.record.of(ObservedAddress)) + 1)
        told = {one.observer_peer: one.inbound for one in listener.host.swarm.observed.current()}
        assert told.pop(dialer.peer)
        assert list(told.values()) == [False]  # the relay
