"""Yamux, rule by rule of docs/wire-rules.md (Y1 to Y3, Y7, Y8), ends, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import LimitExceeded, ProtocolViolation
from punchbridge.yamux import GoAwayCode, Opened, Readable, Reset, StreamState, Yamux
from punchbridge.yamux.frames import ACK, DATA, FIN, GO_AWAY, INITIAL_WINDOW, MAX_CREDIT, PING, RST, SYN, WINDOW_UPDATE
from tests.support.fresh import fresh
from tests.support.yamux_frames import client, data, frame, frames, opened, server, violates

# --- Y1: ids ------------------------------------------------------------------------------------------------


def test_own_ids_are_odd_for_the_client_and_even_for_the_server() -> None:
    assert [client().open(0.0).id, server().open(0.0).id] == [1, 2]
    session = client()
    assert [session.open(0.0).id for _ in range(3)] == [1, 3, 5]


@pytest.mark.parametrize(("session", "stream_id"), [(server(), 2), (client(), 1)])
def test_an_id_of_the_wrong_parity_is_a_violation(session: Yamux, stream_id: int) -> None:
    violates(session, data(SYN, stream_id, b""), "an id of ours")


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
@pytest.mark.parametrize("flags", [0, SYN, FIN])
def test_id_0_carries_no_stream(kind: int, flags: int) -> None:
    violates(server(), frame(kind, flags, 0, 0), "id 0")


@pytest.mark.parametrize("kind", [PING, GO_AWAY])
def test_connection_frames_belong_to_id_0(kind: int) -> None:
    violates(server(), frame(kind, SYN, 1, 0), "on stream 1")


def test_a_stream_is_opened_once() -> None:
    session = server()
    opened(session)
    violates(session, data(SYN, 1, b""), "twice")


def test_the_ids_run_out() -> None:
    session = client()
    session._table._next_id = 2**32 - 1
    assert session.open(0.0).id == 2**32 - 1
    with pytest.raises(LimitExceeded, match="used up"):
        session.open(0.0)


# --- Y2, Y3: opening, ending, combined flags ----------------------------------------------------------------


def test_data_may_come_with_the_syn_and_the_ack_goes_with_the_first_answer() -> None:
    session = server()
    stream = opened(session, 1, b"early")
    assert stream.take(100) == b"early"
    assert frames(session.data(stream, b"hi") + session.data(stream, b"!")) == [(DATA, ACK, 1, 2), (DATA, 0, 1, 1)]


def test_syn_by_window_update_grants_more_at_once() -> None:
    session = server()
    events = session.receive(frame(WINDOW_UPDATE, SYN, 1, 1000), 0.0)
    assert isinstance(events[0], Opened)
    assert events[0].stream.send_window == INITIAL_WINDOW + 1000


def test_ack_with_fin() -> None:
    session = client()
    stream = session.open(0.0)
    session.data(stream, b"x")
    events = session.receive(data(ACK | FIN, stream.id, b"all"), 0.0)
    assert [type(event) for event in events] == [Readable, Readable]
    assert (stream.take(10), stream.fin_received, stream.acked) == (b"all", True, True)


def test_ack_with_reset() -> None:
    session = client()
    stream = session.open(0.0)
    session.data(stream, b"x")
    events = session.receive(frame(WINDOW_UPDATE, ACK | RST, stream.id, 0), 0.0)
    assert events == [Reset(stream)]
    assert stream.reset
    assert not stream.fin_received
    assert session.streams == {}


def test_syn_with_fin() -> None:
    session = server()
    stream = opened_with = None
    for event in session.receive(data(SYN | FIN, 1, b"whole"), 0.0):
        if isinstance(event, Opened):
            stream = opened_with = event.stream
    assert opened_with is not None
    assert stream is not None
    assert stream.fin_received
    assert stream.take(10) == b"whole"
    session.data(stream, b"answer")
    session.finish(stream)
    assert session.streams == {}


def test_fin_is_applied_behind_a_payload_that_comes_in_pieces() -> None:
    session = server()
    stream = opened(session)
    raw = data(FIN, 1, b"0123456789")
    session.receive(raw[:15], 0.0)
    assert not fresh(stream.fin_received)
    session.receive(raw[15:], 0.0)
    assert stream.fin_received
    assert stream.take(20) == b"0123456789"


def test_a_reset_leaves_what_came_before_and_is_no_end_of_stream() -> None:
    session = server()
    stream = opened(session, 1, b"unread")
    assert session.receive(frame(DATA, RST, 1, 0), 0.0) == [Reset(stream)]
    assert (stream.reset, stream.fin_received, stream.id in session.streams) == (True, False, False)
    assert stream.take(10) == b"unread"
    assert session.consumed(stream, 0.0) == b""
    assert session.receive(frame(DATA, 0, 1, 4) + b"late", 0.0) == []
    assert stream.buffered == 0


def test_our_own_reset_drops_unread_data() -> None:
    session = server()
    stream = opened(session, 1, b"unread")
    assert session.reset(stream)
    assert stream.buffered == 0


def test_a_reset_may_follow_data_that_was_sent_before_any_ack() -> None:
    session = client()
    stream = session.open(0.0)
    session.data(stream, b"x" * 1000)
    assert session.receive(frame(WINDOW_UPDATE, RST, 1, 0), 0.0) == [Reset(stream)]


def test_a_half_closed_stream_still_delivers_unread_data() -> None:
    session = server()
    stream = opened(session, 1, b"request")
    session.receive(frame(DATA, FIN, 1, 0), 0.0)
    session.finish(stream)
    assert session.streams == {}
    assert stream.take(100) == b"request"


def test_fin_is_never_combined_with_ack() -> None:
    session = server()
    assert frames(session.finish(opened(session))) == [(WINDOW_UPDATE, ACK, 1, 0), (DATA, FIN, 1, 0)]


def test_data_after_fin_is_a_violation() -> None:
    session = server()
    opened(session)
    session.receive(frame(DATA, FIN, 1, 0), 0.0)
    violates(session, data(0, 1, b"x"), "after the end")


def test_repeated_ends_send_nothing() -> None:
    session = server()
    stream = opened(session)
    assert session.finish(stream)
    assert session.finish(stream) == b""
    assert session.reset(stream)
    assert session.reset(stream) == b""
    assert session.finish(stream) == b""


def test_frames_of_ended_streams_are_tolerated_and_count_no_window() -> None:
    session = server()
    stream = opened(session)
    session.reset(stream)
    late = (data(0, 1, b"late" * 100), frame(WINDOW_UPDATE, 0, 1, 9), frame(DATA, FIN, 1, 0), frame(DATA, RST, 1, 0))
    for raw in late:
        assert session.receive(raw, 0.0) == []
    assert session.take_outgoing() == b""
    assert stream.buffered == 0


# --- Y7, Y8: bounds on streams ------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "most"), [({}, 256), ({"unacked": 8}, 8)])
def test_so_many_own_streams_wait_for_their_ack(limits: dict[str, int], most: int) -> None:
    session = client(**limits)
    streams = [session.open(0.0) for _ in range(most)]
    assert not fresh(session.can_open)
    with pytest.raises(LimitExceeded):
        session.open(0.0)
    session.receive(frame(WINDOW_UPDATE, ACK, streams[7].id, 0), 0.0)
    assert session.can_open
    session.open(0.0)
    session.reset(streams[0])
    assert session.can_open


@pytest.mark.parametrize(("limits", "most"), [({}, 256), ({"backlog": 5}, 5)])
def test_streams_beyond_the_backlog_are_reset_and_the_reader_goes_on(limits: dict[str, int], most: int) -> None:
    session = server(**limits)
    streams = [opened(session, 1 + 2 * index) for index in range(most)]
    beyond = 1 + 2 * most
    assert session.receive(data(SYN, beyond, b"early"), 0.0) == []
    assert frames(session.take_outgoing()) == [(WINDOW_UPDATE, RST, beyond, 0)]
    session.take(streams[3])
    assert isinstance(session.receive(data(SYN, beyond + 2, b""), 0.0)[0], Opened)


@pytest.mark.parametrize(("limits", "most"), [({}, 1024), ({"streams": 9}, 9)])
def test_streams_beyond_the_table_are_reset(limits: dict[str, int], most: int) -> None:
    session = server(**limits)
    for index in range(most):
        session.take(opened(session, 1 + 2 * index))
    assert session.receive(data(SYN, 1 + 2 * most, b""), 0.0) == []


def test_streams_that_only_linger_make_room() -> None:
    session = server(streams=20)
    for index in range(20):
        stream = opened(session, 1 + 2 * index)
        session.take(stream)
        if index in (5, 6):
            session.close(stream, 0.0)
    session.take_outgoing()
    assert isinstance(session.receive(data(SYN, 9001, b""), 0.0)[0], Opened)
    assert frames(session.take_outgoing()) == [(WINDOW_UPDATE, RST, 11, 0)]
    assert session.open(0.0).id == 2
    assert frames(session.take_outgoing()) == [(WINDOW_UPDATE, RST, 13, 0)]
    assert not session.can_open


def test_a_peer_that_never_reads_its_refusals_is_cut_off() -> None:
    session = server(refusals=7)
    session.go_away(GoAwayCode.NORMAL)
    raw = b"".join(data(SYN, 1 + 2 * index, b"") for index in range(7))
    assert session.receive(raw, 0.0) == []
    raw = data(SYN, 1 + 2 * 7, b"")
    violates(session, raw, "refusals")


# --- malformed bytes ----------------------------------------------------------------------------------------


def test_an_unknown_version_is_a_violation() -> None:
    violates(server(), frame(PING, SYN, 0, 0, version=7), "version 7")


def test_an_unknown_type_is_a_violation() -> None:
    violates(server(), frame(9, 0, 0, 0), "type 9")


# --- closing with unread data -------------------------------------------------------------------------------


def test_after_a_close_late_data_is_dropped_then_reset() -> None:
    session = server(discarded=1000)
    stream = opened(session)
    assert frames(session.close(stream, 0.0)) == [(WINDOW_UPDATE, ACK, 1, 0), (DATA, FIN, 1, 0)]
    assert session.receive(data(0, 1, bytes(1000)), 0.0) == []
    assert session.take_outgoing() == b""
    session.receive(data(0, 1, b"x"), 0.0)
    assert frames(session.take_outgoing()) == [(WINDOW_UPDATE, RST, 1, 0)]
    assert session.streams == {}


def test_a_close_with_much_unread_data_resets_at_once() -> None:
    session = server(discarded=1000)
    stream = opened(session, 1, bytes(1001))
    assert frames(session.close(stream, 0.0)) == [(WINDOW_UPDATE, RST, 1, 0)]


def test_a_closed_stream_lingers_a_bounded_time() -> None:
    session = server(linger=8.0)
    session.close(opened(session), 1.0)
    assert session.streams
    session.receive(frame(PING, ACK, 0, 99), 8.9)
    assert session.on_timer(8.9) == []
    assert session.streams
    assert session.next_timer() == 9.0
    session.take_outgoing()
    session.on_timer(9.0)
    assert (WINDOW_UPDATE, RST, 1, 0) in frames(session.take_outgoing())
    assert session.streams == {}


# --- properties ---------------------------------------------------------------------------------------------


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_raise_only_the_remote_fault(raw: bytes, step: int) -> None:
    session = server()
    opened(session)
    try:
        for start in range(0, len(raw), step):
            session.receive(raw[start : start + step], 0.0)
    except ProtocolViolation:
        pass
    assert all(stream.buffered <= stream.max_window for stream in session.streams.values())


header_fields = st.tuples(
    st.sampled_from([0, 0, 0, 1]),
    st.integers(0, 4),
    st.integers(0, 15),
    st.sampled_from([0, 1, 2, 3, 5, 7]),
    st.sampled_from([0, 1, 5, 100, INITIAL_WINDOW, INITIAL_WINDOW + 1, MAX_CREDIT]),
)


@given(st.lists(header_fields, max_size=30))
def test_any_headers_raise_only_the_remote_fault(headers: list[tuple[int, int, int, int, int]]) -> None:
    session = server()
    try:
        for version, kind, flags, stream_id, length in headers:
            payload = bytes(length) if kind == DATA and length <= INITIAL_WINDOW else b""
            session.receive(frame(kind, flags, stream_id, length, payload, version), 0.0)
    except ProtocolViolation:
        pass
    assert session._table._backlog == sum(not stream.taken for stream in session.streams.values())
    assert session._table._unacked == 0


@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=3000)), max_size=20),
    st.integers(1, 500),
    st.integers(1, 4000),
)
def test_two_sessions_move_every_byte_in_order_however_it_is_split(
    writes: list[tuple[int, bytes]], step: int, read: int
) -> None:
    left, right = client(), server()
    streams = [left.open(0.0) for _ in range(3)]
    raw = b"".join(left.data(streams[index], memoryview(payload)) for index, payload in writes)
    raw += b"".join(left.finish(stream) for stream in streams)
    arrived: dict[int, StreamState] = {}
    received: dict[int, bytes] = {}
    for start in range(0, len(raw), step):
        for event in right.receive(raw[start : start + step], 0.0):
            if isinstance(event, Opened):
                arrived[event.stream.id] = event.stream
        for stream_id, stream in arrived.items():
            received[stream_id] = received.get(stream_id, b"") + stream.take(read)
    for stream_id, stream in arrived.items():
        received[stream_id] += stream.take(1 << 20)
        assert stream.fin_received
        assert stream.buffered == 0
    for index, stream in enumerate(streams):
        sent = b"".join(payload for number, payload in writes if number == index)
        assert received[stream.id] == sent
