"""Streams are opened and accepted while bulk of another one fills the connection's send queue."""

from __future__ import annotations

from punchbridge.config import MIB
from punchbridge.transport.streams.stream import Stream
from punchbridge.wire.multistream import HEADER, line
from punchbridge.yamux.frames import ACK, DATA, SYN, WINDOW_UPDATE, header
from tests.support.pairs import Side
from tests.support.scripted import PROTOCOL, Script, scripted

PROPOSAL = HEADER + line(PROTOCOL)
WINDOW = 64 * MIB
"""More than the kernel's buffers of a loopback connection hold."""


async def fill(side: Side, peer: Script) -> Stream:
    """Stream 1 sends until the queue is full, since the peer reads nothing."""
    bulk = await side.connection.open_stream([PROTOCOL], lazy=True)
    assert await peer.hear(DATA, SYN) == (1, len(PROPOSAL))
    await peer.say(header(WINDOW_UPDATE, ACK, 1, WINDOW), header(DATA, 0, 1, len(PROPOSAL)), PROPOSAL)
    await bulk.wait_send_all_might_not_block()
    while side.connection._sender.queued < side.connection._sender.full:
        await bulk.wait_send_all_might_not_block()
        bulk.send_nowait(bytes(65536))
    return bulk


async def test_an_inbound_stream_is_answered_behind_the_bulk() -> None:
    async with scripted() as (side, peer):
        await fill(side, peer)
        await peer.say(header(DATA, SYN, 2, len(PROPOSAL)), PROPOSAL)
        assert (await side.accept()).id == 2
        assert await peer.hear(DATA, ACK) == (2, len(PROPOSAL))


async def test_a_stream_of_ours_is_proposed_behind_the_bulk() -> None:
    async with scripted() as (side, peer):
        await fill(side, peer)
        stream = await side.connection.open_stream([PROTOCOL], lazy=True)
        assert stream.id == 3
        assert await peer.hear(DATA, SYN) == (3, len(PROPOSAL))
