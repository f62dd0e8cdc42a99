"""The relay's tables against peers that leave at the wrong moment: nothing is held for somebody who is gone."""

from __future__ import annotations

import pytest
import trio

from punchbridge.errors import StreamReset
from punchbridge.events import ConnectionClosed
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import write_message
from punchbridge.wire.circuit import HOP, encode_reserve
from punchbridge_relay.events import CircuitClosed
from tests.support.relay_lab import circuit, network


async def test_a_request_read_after_its_peer_has_gone_reserves_nothing() -> None:
    """The bytes of a closed connection stay readable; nothing would end such a reservation before its time."""
    async with network() as net:
        relay, node = await net.relay(), await net.node(client=False)
        registration = relay.swarm.registry.get(HOP)
        assert registration is not None
        real, done = registration.handler, trio.Event()

        async def late(stream: Stream) -> None:
            try:
                stream.push_back(await stream.receive_some())
                stream.connection.abort("TEST")
                await relay.log.wait(ConnectionClosed)
                await real(stream)
            finally:
                done.set()

        registration.handler = late
        connection = await node.swarm.dial(relay.addr)
        await write_message(await connection.open_stream([HOP]), encode_reserve())
        await done.wait()
        assert relay.service.stats().reservations == 0


@pytest.mark.parametrize("from_source", [True, False])
async def test_a_reset_behind_a_half_close_goes_through_as_a_reset(from_source: bool) -> None:
    async with network() as net:
        relay = await net.relay()
        near, far, _, _ = await circuit(net, relay)
        near, far = (near, far) if from_source else (far, near)
        await near.send_eof()
        assert await far.receive_some() == b""
        near.abort()
        closed = await relay.log.wait(CircuitClosed)
        assert closed.reason == ("SOURCE_RESET" if from_source else "TARGET_RESET")
        with pytest.raises(StreamReset):
            await far.send_all(b"x" * (1 << 20))
        assert len(relay.service.circuits) == 0
