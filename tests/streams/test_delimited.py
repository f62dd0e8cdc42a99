"""Length-prefixed messages on a real stream."""

from __future__ import annotations

import pytest
import trio

from punchbridge.errors import ProtocolViolation, StreamReset
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire import varint
from punchbridge.wire.messages import MAX_MESSAGE
from tests.support.pairs import connection_pair

PROTOCOL = "/test/1.0.0"


async def test_messages_and_what_follows_them() -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL])
        peer = await second.accept()
        await stream.send_all(varint.prefixed(b"one") + varint.prefixed(b"") + varint.prefixed(b"three") + b"circuit")
        assert [await read_message(peer) for _ in range(3)] == [b"one", b"", b"three"]
        assert await peer.receive_some(3) == b"cir"
        assert await peer.receive_some() == b"cuit"


async def test_both_ways_at_the_limit() -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL])
        peer = await second.accept()
        await write_message(stream, bytes(MAX_MESSAGE))
        assert await read_message(peer) == bytes(MAX_MESSAGE)
        await write_message(peer, bytes(MAX_MESSAGE + 1))
        with pytest.raises(ProtocolViolation, match="4097 bytes"):
            await read_message(stream)


@pytest.mark.parametrize("said", [b"", b"\x05abc", b"\x80"])
async def test_an_end_inside_a_message(said: bytes) -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL])
        peer = await second.accept()
        await stream.send_all(said)
        await stream.send_eof()
        with pytest.raises(ProtocolViolation, match="ended"):
            await read_message(peer)


async def test_an_oversized_prefix_is_refused_before_the_message_arrives() -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL])
        peer = await second.accept()
        await stream.send_all(varint.encode(2**62))
        with pytest.raises(ProtocolViolation):
            await read_message(peer)


async def test_a_reset_is_a_reset() -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL])
        peer = await second.accept()
        stream.abort()
        with pytest.raises(StreamReset):
            await read_message(peer)


async def test_cancelling_leaves_the_stream_as_it_was() -> None:
    async with connection_pair() as (first, second):
        stream = await first.connection.open_stream([PROTOCOL])
        peer = await second.accept()
        await stream.send_all(b"\x05ab")
        with trio.move_on_after(0.05) as scope:
            await read_message(peer)
        assert scope.cancelled_caught
        await stream.send_all(b"cde")
        assert await read_message(peer) == b"abcde"
