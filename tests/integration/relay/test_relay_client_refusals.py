"""The relay client over loopback: refused reservations, bad relays, bounds, and what each text says."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.addresses import parse, with_peer
from punchbridge.behaviours.relay_client import RelayClient
from punchbridge.config import Limits, RelayClientLimits
from punchbridge.errors import (
    AddressError,
    AuthenticationFailed,
    LimitExceeded,
    NegotiationFailed,
    ProtocolViolation,
    RelayRefused,
    SwarmStopped,
    Unreachable,
)
from punchbridge.eventhub import EventHub
from punchbridge.identity import Identity
from punchbridge.swarm.swarm import SwarmConfig, open_swarm
from punchbridge.transport.base import Stream
from punchbridge.wire.circuit import HOP, Grant, Status, encode_hop_answer, encode_stop_connect
from punchbridge.wire.voucher import seal_voucher
from tests.support.relay_lab import fake_relay, grant, mute_relay, network

STRANGER = Identity.generate()


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (Status.RESERVATION_REFUSED, "use another relay"),
        (Status.PERMISSION_DENIED, "ask its operator"),
        (777, "use another relay"),
    ],
)
async def test_a_refused_reservation_says_what_to_do_and_keeps_nothing(status: int, advice: str) -> None:
    async with network() as net:
        _, addr = await fake_relay(net, encode_hop_answer(status))
        node = await net.node()
        with pytest.raises(RelayRefused, match=advice) as caught:
            await node.relays.reserve(addr)
        assert caught.value.status == (status.name if isinstance(status, Status) else "STATUS_777")
        assert node.relays.reservations() == ()
        assert node.swarm.announced() == ()
        with pytest.raises(RelayRefused):  # asked again, not kept
            await node.swarm.reserve(addr)


async def test_a_peer_that_is_no_relay() -> None:
    async with network() as net:
        other, node = await net.node(), await net.node()
        (addr,) = await other.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))
        with pytest.raises(NegotiationFailed, match="no circuit relay"):
            await node.relays.reserve(with_peer(addr, other.peer))


async def test_unknown_relays_and_wrong_ids() -> None:
    async with network() as net:
        relay, node = await net.relay(), await net.node()
        with pytest.raises(AuthenticationFailed):
            await node.relays.reserve(parse(str(relay.addr).rpartition("/")[0] + f"/{STRANGER}"))
        with pytest.raises(Unreachable):
            await node.relays.reserve(parse(f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}"))
        with pytest.raises(AddressError, match="no relay's address"):
            await node.relays.reserve(parse(f"/p2p/{STRANGER}"))
        assert node.relays.reservations() == ()


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        (encode_hop_answer(Status.OK), "without a reservation"),
        (b"\xff\xff", "not a circuit message"),
        (encode_stop_connect(STRANGER.peer_id), "another hop message"),
        (grant(-3600), "check the clocks"),
        (grant(60, b"junk"), "envelope"),
        (grant(60, seal_voucher(STRANGER, STRANGER.peer_id, 2**40)), "not of"),
    ],
    ids=["no grant", "garbage", "stop message", "expired", "junk voucher", "foreign voucher"],
)
async def test_bad_answers_of_a_relay_are_typed_errors(answer: bytes, phrase: str) -> None:
    async with network() as net:
        _, addr = await fake_relay(net, answer)
        node = await net.node()
        with pytest.raises(ProtocolViolation, match=phrase):
            await node.relays.reserve(addr)
        assert node.swarm.announced() == ()


async def test_r14_a_reservation_to_the_end_of_time_is_accepted() -> None:
    async with network() as net:
        _, addr = await fake_relay(net, encode_hop_answer(Status.OK, Grant(2**64 - 1)))
        node = await net.node()
        assert (await node.relays.reserve(addr)).expires == 2**64 - 1


async def test_relay_addresses_of_others_and_private_ones_are_not_announced() -> None:
    async with network() as net:
        named = tuple(
            parse(text)
            for text in (
                "/ip4/8.8.8.8/tcp/4001",
                "/ip4/10.0.0.1/tcp/4001",
                f"/ip4/8.8.4.4/tcp/4001/p2p/{STRANGER}",
                f"/ip4/8.8.4.4/tcp/4001/p2p/{STRANGER}/p2p-circuit",
            )
        )
        relay, addr = await fake_relay(net, grant(3600, addrs=named))
        node = await net.node()
        reservation = await node.relays.reserve(addr)
        tail = f"p2p/{relay.swarm.identity}/p2p-circuit/p2p/{node.swarm.identity}"
        assert [str(one) for one in reservation.addrs] == [
            f"{addr}/p2p-circuit/p2p/{node.swarm.identity}",
            f"/ip4/8.8.8.8/tcp/4001/{tail}",
        ]


async def test_a_mute_relay_ends_in_a_time_out() -> None:
    limits = Limits(relay_client=RelayClientLimits(reserve_timeout=0.05))
    async with network() as net:
        mute, node = await net.node(client=False), await net.node(limits=limits)
        (addr,) = await mute.swarm.listen(parse("/ip4/127.0.0.1/tcp/0"))

        async def mute_hop(_: Stream) -> None:
            await trio.sleep_forever()

        await mute.swarm.handle(HOP, mute_hop, max_streams=4, max_per_peer=4)
        with pytest.raises(Unreachable, match="did not answer RESERVE"):
            await node.relays.reserve(with_peer(addr, mute.peer))


async def test_the_number_of_relays_is_bounded() -> None:
    async with network() as net:
        node = await net.node(limits=Limits(relay_client=RelayClientLimits(relays=3)))
        node.relays.keep([parse(f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate()}") for _ in range(3)])
        with pytest.raises(LimitExceeded, match="3 relays are kept already"):
            await node.relays.reserve(parse(f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}"))


async def test_a_cancelled_reserve_keeps_nothing() -> None:
    async with network() as net:
        mute, addr, asked = await mute_relay(net)
        node = await net.node()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.relays.reserve, addr)
            await asked.wait()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert node.relays.reservations() == ()
        assert node.relays._keepers == []
        assert node.swarm.connections(mute.peer)[0].streams == 0


async def test_outside_of_run_calls_say_so() -> None:
    async with open_swarm(SwarmConfig(STRANGER), EventHub()) as swarm:
        with pytest.raises(SwarmStopped):
            await RelayClient(swarm).reserve(parse(f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate()}"))
