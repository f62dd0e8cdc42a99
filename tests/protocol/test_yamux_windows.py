"""Yamux windows (Y4 to Y6 of docs/wire-rules.md): what is granted, when it grows, and what it keeps in memory."""

from __future__ import annotations

import pytest

from punchbridge.config import MIB, MemoryLimits
from punchbridge.tasks.memory import Memory
from punchbridge.yamux import GoAwayCode, StreamState, Writable, Yamux
from punchbridge.yamux.frames import ACK, DATA, FIN, INITIAL_WINDOW, MAX_CREDIT, PING, RST, SYN, WINDOW_UPDATE
from tests.support.yamux_frames import data, frame, frames, opened, server, violates


def test_the_initial_window_is_256_kib() -> None:
    session = server()
    stream = opened(session, 1, bytes(INITIAL_WINDOW))
    assert stream.receive_window == 0
    violates(session, data(0, 1, b"x"), "into a window of 0")


@pytest.mark.parametrize("refused", [False, True])
def test_syn_with_an_oversized_first_frame_is_a_violation(refused: bool) -> None:
    """CVE-2026-32314: the header alone decides; refused streams have no larger window than accepted ones."""
    session = server()
    if refused:
        session.go_away(GoAwayCode.NORMAL)
    violates(session, frame(DATA, SYN, 1, INITIAL_WINDOW + 1), "262145 bytes")


@pytest.mark.parametrize(("window_most", "granted"), [(16 * MIB, 16 * MIB), (MIB, MIB), (1, INITIAL_WINDOW)])
def test_a_huge_frame_on_an_unknown_stream_is_a_violation(window_most: int, granted: int) -> None:
    session = server(window_most=window_most)
    assert session.receive(frame(DATA, 0, 7, granted, bytes(granted)), 0.0) == []
    violates(session, frame(DATA, 0, 7, granted + 1), "on stream 7")


def test_data_beyond_the_window_is_never_buffered() -> None:
    session = server()
    stream = opened(session, 1, bytes(INITIAL_WINDOW - 10))
    violates(session, data(0, 1, bytes(11)), "into a window of 10")
    assert stream.buffered == INITIAL_WINDOW - 10


def test_a_window_that_overflows_32_bits_closes_the_connection() -> None:
    """CVE-2026-31814."""
    session = server()
    opened(session)
    violates(session, frame(WINDOW_UPDATE, 0, 1, MAX_CREDIT), "overflows")


def test_the_largest_window_is_allowed() -> None:
    session = server()
    stream = opened(session)
    assert session.receive(frame(WINDOW_UPDATE, 0, 1, MAX_CREDIT - INITIAL_WINDOW), 0.0) == [Writable(stream)]
    assert stream.send_window == MAX_CREDIT


def test_credit_goes_back_at_half_a_window() -> None:
    session = server()
    stream = opened(session, 1, bytes(INITIAL_WINDOW))
    stream.take(INITIAL_WINDOW // 2 - 1)
    assert session.consumed(stream, 1.0) == b""
    stream.take(1)
    assert frames(session.consumed(stream, 1.0)) == [(WINDOW_UPDATE, ACK, 1, INITIAL_WINDOW // 2)]
    assert stream.receive_window == INITIAL_WINDOW // 2


def test_only_payload_counts_for_the_window() -> None:
    session = server()
    stream = opened(session)
    for _ in range(100):
        session.receive(frame(WINDOW_UPDATE, 0, 1, 1) + frame(DATA, 0, 1, 0), 0.0)
    assert stream.receive_window == INITIAL_WINDOW


def fill(session: Yamux, stream: StreamState, now: float) -> bytes:
    """The peer uses its whole window, everything is read."""
    while stream.receive_window:
        session.receive(data(0, stream.id, bytes(min(stream.receive_window, 65507))), now)
    stream.take(1 << 30)
    return session.consumed(stream, now)


@pytest.mark.parametrize(("limits", "most"), [({}, 16 * MIB), ({"window_most": 3 * MIB}, 3 * MIB)])
def test_the_window_doubles_within_two_round_trips_up_to_the_largest(limits: dict[str, int], most: int) -> None:
    session = server(**limits)
    stream = opened(session)
    session.liveness.believed = 0.1
    now = 0.0
    for _ in range(10):
        now += 0.19
        fill(session, stream, now)
    assert stream.max_window == stream.receive_window == most


def test_the_window_stays_for_a_slow_reader() -> None:
    session = server()
    stream = opened(session)
    session.liveness.believed = 0.1
    for turn in range(1, 5):
        fill(session, stream, turn * 0.5)
    assert stream.max_window == INITIAL_WINDOW


def test_a_reader_that_catches_up_after_a_pause_gets_no_larger_window() -> None:
    session = server()
    stream = opened(session)
    session.liveness.believed = 0.0001
    for turn in range(1, 50):
        for part in (0.0, 0.0005, 0.001):
            fill(session, stream, turn * 0.04 + part)
    assert stream.max_window == INITIAL_WINDOW


def test_the_window_follows_a_steady_reader_on_a_short_path() -> None:
    session = server()
    stream = opened(session)
    session.liveness.believed = 0.0001
    for turn in range(1, 500):
        fill(session, stream, turn * 0.001)
    assert stream.max_window == 16 * MIB


def test_all_windows_of_a_connection_stay_in_the_budget() -> None:
    session = server(window_budget=5 * MIB)
    session.liveness.believed = 1.0
    streams = [opened(session, stream_id) for stream_id in range(1, 21, 2)]
    for turn in range(10):
        for stream in streams:
            fill(session, stream, turn * 0.1)
    assert sum(stream.max_window - INITIAL_WINDOW for stream in streams) == 5 * MIB
    for stream in streams:
        session.reset(stream)
    assert session._table._granted == 0


def test_no_credit_for_a_stream_that_ended() -> None:
    session = server()
    stream = opened(session, 1, bytes(INITIAL_WINDOW))
    session.receive(frame(DATA, FIN, 1, 0), 0.0)
    stream.take(INITIAL_WINDOW)
    assert session.consumed(stream, 0.0) == b""


# --- memory -------------------------------------------------------------------------------------------------


def test_small_pieces_do_not_keep_large_buffers_alive() -> None:
    """One byte of stream data in each 64 KiB of junk must not hold the junk."""
    session = server()
    stream = opened(session)
    junk = frame(WINDOW_UPDATE, 0, 5, 0) * 5000
    for _ in range(50):
        session.receive(data(0, 1, b"x") + junk, 0.0)
    held = sum(memoryview(piece.obj).nbytes if isinstance(piece, memoryview) else len(piece) for piece in stream.inbox)
    assert held == 50
    assert len(stream.inbox) == 1


def test_put_back_bytes_come_first_and_are_not_granted_twice() -> None:
    session = server()
    stream = opened(session, 1, bytes(INITIAL_WINDOW))
    taken = stream.take(INITIAL_WINDOW)
    stream.put_back(b"\x01" + taken[1:])
    assert session.consumed(stream, 0.0) == b""
    assert stream.take(2) == b"\x01\x00"
    assert stream.take(INITIAL_WINDOW) == bytes(INITIAL_WINDOW - 2)
    assert frames(session.consumed(stream, 0.0))[0][3] == INITIAL_WINDOW


def test_windows_of_several_connections_grow_from_one_budget() -> None:
    memory = Memory(MemoryLimits(windows=3 * MIB, windows_per_address=2 * MIB))
    sessions = [Yamux(client=False, now=0.0, account=memory.account(origin)) for origin in ("a", "a", "b")]
    streams = [opened(session) for session in sessions]
    for turn in range(10):
        for session, stream in zip(sessions, streams, strict=True):
            session.liveness.believed = 1.0
            fill(session, stream, turn * 0.1)
    grown = [stream.max_window - INITIAL_WINDOW for stream in streams]
    assert (grown[0] + grown[1], grown[2]) == (2 * MIB, MIB)
    sessions[0].reset(streams[0])
    assert memory.granted == 3 * MIB - grown[0]


def test_a_late_answer_to_a_ping_makes_no_path_longer_than_a_second() -> None:
    session = server()
    value, _ = session.ping(0.0)
    session.receive(frame(PING, ACK, 0, value), 8.0)
    assert (session.liveness.floor, session.liveness.believed) == (8.0, 1.0)
    stream = opened(session)
    for turn in range(1, 20):  # half a window in 2.5 s: within two round trips of eight seconds, not of one
        fill(session, stream, 8.0 + turn * 5)
    assert stream.max_window == INITIAL_WINDOW


def test_unread_bytes_are_counted_until_they_are_read_or_dropped() -> None:
    session = server()
    first, second = opened(session, 1, bytes(1000)), opened(session, 3, bytes(500))
    assert session.account.unread == 1500
    first.take(400)
    first.put_back(bytes(100))
    first.take_pieces(50)
    assert session.account.unread == 1150
    session.receive(frame(WINDOW_UPDATE, RST, 3, 0), 1.0)
    assert session.account.unread == 1150, "what came before the reset may still be read"
    session.reset(second)
    session.close(first, 1.0)
    assert session.account.unread == 0
