"""What an operator grants reaches the relay's swarm, and what the swarm turns away is told among its refusals."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from punchbridge.addresses import Multiaddr, endpoint_of, parse, with_peer
from punchbridge.behaviours.relay_client import RelayClient
from punchbridge.cli.callers import Callers
from punchbridge.cli.relay import LimitFlags, RelayFlags
from punchbridge.cli.relay import _program as made_of
from punchbridge.config import Limits, SwarmLimits
from punchbridge.eventhub import EventHub
from punchbridge.identity import Identity
from punchbridge.swarm.swarm import Swarm, SwarmConfig, open_swarm
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.program import RelayConfig, run
from punchbridge_relay.service import HopService

PER_ADDRESS = SwarmLimits().connections_per_address


def configured(limits: RelayLimits, rooms: Limits | None = None) -> RelayConfig:
    return RelayConfig(
        identity=Identity.generate(),
        listen=(parse("/ip4/127.0.0.1/tcp/0"),),
        limits=limits,
        rooms=rooms,
        allow_private=True,
    )


@asynccontextmanager
async def open_relay(config: RelayConfig) -> AsyncIterator[tuple[HopService, Multiaddr]]:
    swarm: Swarm
    async with trio.open_nursery() as nursery:
        service = await nursery.start(partial(run, config, EventHub()))
        swarm = service._swarm
        yield service, with_peer(swarm.listen_addrs()[0], swarm.peer)
        nursery.cancel_scope.cancel()


async def knock(stack: AsyncExitStack, addr: Multiaddr, times: int) -> None:
    """Opens so many sockets that say nothing; one that is turned away may be so before its opener has seen it open."""
    endpoint = endpoint_of(addr)
    assert endpoint is not None
    for _ in range(times):
        with contextlib.suppress(OSError):
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
            stack.push_async_callback(trio.aclose_forcefully, stream)


async def test_unlimited_reservations_of_one_address_are_taken_from_one_address() -> None:
    limits = RelayLimits(reservations=5000, reservations_per_address=0, address_burst=0)
    async with open_relay(configured(limits)) as (service, addr), AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for _ in range(PER_ADDRESS + 6):
            config = SwarmConfig(Identity.generate(), allow_private=True)
            swarm = await stack.enter_async_context(open_swarm(config, EventHub()))
            client = RelayClient(swarm)
            await nursery.start(client.run)
            await swarm.reserve(addr)
        assert service.stats().reservations == PER_ADDRESS + 6
        assert service.stats().refused == {}
        nursery.cancel_scope.cancel()


async def test_connections_that_the_swarm_turns_away_are_among_the_refused() -> None:
    async with open_relay(configured(RelayLimits())) as (service, addr), AsyncExitStack() as stack:
        await knock(stack, addr, SwarmLimits().half_open_per_address + 3)
        with trio.fail_after(20):
            while service.refused != {"half_open_per_address": 3}:  # noqa: ASYNC110
                await trio.lowlevel.checkpoint()
        stats = service.stats()
        assert stats.refused == {"half_open_per_address": 3}
        assert stats.refused_from == ({"reason": "half_open_per_address", "from": "127.0.0.1", "times": 3},)


async def test_a_bound_that_the_operator_set_is_kept() -> None:
    rooms = Limits(swarm=SwarmLimits(connections_per_address=2))
    limits = RelayLimits(reservations_per_address=0)
    async with open_relay(configured(limits, rooms)) as (service, addr), AsyncExitStack() as stack:
        await knock(stack, addr, 3)
        with trio.fail_after(20):
            while not service.refused:  # noqa: ASYNC110
                await trio.lowlevel.checkpoint()
        assert service.refused == {"connections_per_address": 1}


async def test_a_bound_that_the_operator_set_to_the_default_is_kept_as_well(tmp_path: Path) -> None:
    """Without a word of the operator there would be no bound, since reservations of one address have none."""
    words = f"limits.swarm.connections_per_address={PER_ADDRESS}"
    flags = RelayFlags(listen=("/ip4/127.0.0.1/tcp/0",), key=tmp_path / "key", new_key=True, set=(words,))
    config = made_of(flags.settings(LimitFlags(reservations_per_address=0), Callers()))
    async with open_relay(config) as (service, addr), AsyncExitStack() as stack:
        await knock(stack, addr, PER_ADDRESS + 2)
        with trio.fail_after(20):
            while service.refused != {"connections_per_address": 2}:  # noqa: ASYNC110
                await trio.lowlevel.checkpoint()


async def test_who_reserves_stays_when_places_are_short_and_idle_ones_give_way() -> None:
    rooms = Limits(swarm=SwarmLimits(connections=8, idle_grace=0.0))
    async with open_relay(configured(RelayLimits(), rooms)) as (service, addr), AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def peer() -> Swarm:
            return await stack.enter_async_context(open_swarm(SwarmConfig(Identity.generate()), EventHub()))

        listener = await peer()
        client = RelayClient(listener)
        await nursery.start(client.run)
        await listener.reserve(addr)
        reserved = listener.connections()[0]
        idle = []
        for _ in range(12):
            connection = await (await peer()).dial(addr)
            await connection.ping()
            idle.append(connection)
        assert not reserved.closed.is_set()
        assert service.refused["connections"] >= 5
        with trio.fail_after(10):
            for connection in idle[:5]:
                await connection.closed.wait()
        assert not idle[-1].closed.is_set()
        nursery.cancel_scope.cancel()
