"""What ends at the same moment as the connection below it: closing tasks, streams being opened, streams being taken."""

from __future__ import annotations

import socket
import struct
from typing import Never

import pytest
import trio
import trio.testing

from punchbridge.config import MIB
from punchbridge.errors import ConnectionLost, StreamReset
from punchbridge.transport.link import Link
from punchbridge.wire.multistream import HEADER, line
from punchbridge.yamux.frames import ACK, DATA, RST, SYN, WINDOW_UPDATE, header
from tests.support.pairs import connection_pair, upgraded_pair
from tests.support.scripted import PROTOCOL, Script, open_pair, scripted

PROPOSAL = HEADER + line(PROTOCOL)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def crash(peer: Script) -> None:
    """The peer's kernel resets the connection; our side learns of it at its next call of the socket."""
    peer.raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)  # type: ignore[attr-defined]
    peer.raw.abort()


def said(peer: Script, *frames: bytes) -> None:
    """As `Script.say`, without a task switch."""
    message = peer._connection._sender._seal(b"".join(frames))
    assert peer.raw.send_nowait(message) == len(message)


@pytest.mark.parametrize("turn", range(20))  # trio runs what is due in random order
async def test_a_connection_cut_while_its_goodbye_waits_for_the_socket(turn: int) -> None:
    async with scripted() as (side, peer):
        connection = side.connection
        stream = await connection.open_stream([PROTOCOL], lazy=True)
        await peer.say(header(WINDOW_UPDATE, ACK, stream.id, 64 * MIB))
        await stream.wait_send_all_might_not_block()
        while stream.send_nowait(bytes(65536)):
            await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.aclose, "SHUTDOWN")
            await trio.testing.wait_all_tasks_blocked()
            assert connection._sender.queued
            connection.abort("CUT")
        assert connection.close_reason == "SHUTDOWN"


async def test_a_stream_whose_proposal_meets_a_dead_socket_is_not_waited_for() -> None:
    async with scripted() as (side, peer):
        await trio.testing.wait_all_tasks_blocked()
        crash(peer)
        with trio.fail_after(5), pytest.raises(ConnectionLost):
            await side.connection.open_stream([PROTOCOL])


async def test_a_stream_behind_the_frame_whose_answer_ended_the_connection_is_nobodys() -> None:
    async with scripted() as (side, peer):
        await trio.testing.wait_all_tasks_blocked()
        said(peer, *[part for number in (2, 4) for part in (header(DATA, SYN, number, len(PROPOSAL)), PROPOSAL)])
        crash(peer)
        await side.connection.closed.wait()
        await trio.testing.wait_all_tasks_blocked()
        handed_out = side.accepted.statistics().current_buffer_used
        assert handed_out
        for _ in range(handed_out):
            with trio.fail_after(5), pytest.raises(ConnectionLost):
                await (await side.accept()).receive_some()


async def test_what_came_before_a_reset_is_read_also_when_the_answer_to_the_proposal_came_with_both() -> None:
    async with scripted() as (side, peer):
        stream = await side.connection.open_stream([PROTOCOL], lazy=True)
        answer = PROPOSAL + b"refused, because"
        await peer.say(header(DATA, ACK, stream.id, len(answer)), answer, header(WINDOW_UPDATE, RST, stream.id, 0))
        with trio.fail_after(5):
            assert await stream.receive_some() == b"refused, because"
            with pytest.raises(StreamReset):
                await stream.receive_some()


def broken() -> Never:
    raise KeyError("a defect")


async def test_a_defect_in_what_takes_a_streams_bytes_costs_that_stream(caplog: pytest.LogCaptureFixture) -> None:
    async with connection_pair() as (first, second):
        stream, peer = await open_pair(first, second)
        other, other_peer = await open_pair(first, second)

        stream.on_readable = broken
        await peer.send_all(b"x")
        with trio.fail_after(5), pytest.raises(StreamReset):
            await peer.receive_some()
        await other_peer.send_all(b"still there")
        assert await other.receive_some() == b"still there"
        assert "defect" in caplog.text


async def test_a_defect_in_a_connection_over_a_circuit_leaves_the_one_below_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connection_pair() as (first, second):
        near, far = await open_pair(first, second)
        address = first.connection.remote
        links = [Link(raw, address, address, "relay", raw is far, first.connection.peer) for raw in (near, far)]
        async with upgraded_pair(links[0], links[1], first.identity, second.identity, [PROTOCOL]) as (upper, peer):
            upper.connection._mux.supported = broken
            with trio.fail_after(5), pytest.raises(ConnectionLost):
                await peer.connection.open_stream([PROTOCOL])
            assert upper.connection.closed.is_set()
            assert not first.connection.closed.is_set()
            assert await first.connection.ping() > 0
        assert "defect" in caplog.text
