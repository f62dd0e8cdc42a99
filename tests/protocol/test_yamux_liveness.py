"""Yamux pings, keepalive and GoAway (Y9, Y10 of docs/wire-rules.md)."""

from __future__ import annotations

import pytest

from punchbridge.errors import ConnectionLost, LimitExceeded
from punchbridge.yamux import Dead, GoAwayCode, GoneAway, Pong
from punchbridge.yamux.frames import ACK, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE
from tests.support.yamux_frames import client, data, established, frame, frames, opened, server

# --- Y9, Y10: ping and GoAway -------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_own_value() -> None:
    session = server()
    session.receive(frame(PING, SYN, 0, 0xDEADBEEF), 0.0)
    assert frames(session.take_outgoing()) == [(PING, ACK, 0, 0xDEADBEEF)]


def test_ping_answers_are_bounded_until_they_are_sent() -> None:
    session = server(ping_answers=5)
    flood = frame(PING, SYN, 0, 1) * 15
    session.receive(flood, 0.0)
    assert len(frames(session.take_outgoing())) == 5
    session.flushed()
    session.receive(flood, 0.0)
    assert len(frames(session.take_outgoing())) == 5


def test_our_ping_measures_the_round_trip_and_ignores_strangers() -> None:
    session = client()
    value, raw = session.ping(1.0)
    assert frames(raw) == [(PING, SYN, 0, value)]
    assert session.receive(frame(PING, ACK, 0, value + 5), 1.1) == []
    assert session.receive(frame(PING, ACK, 0, value), 1.25) == [Pong(value, 0.25)]
    assert session.receive(frame(PING, ACK, 0, value), 9.0) == []
    assert session.rtt == 0.25


def test_our_pings_are_bounded() -> None:
    session = client(pings=3)
    for _ in range(3):
        session.ping(0.0)
    with pytest.raises(LimitExceeded):
        session.ping(0.0)


def test_goaway_of_the_peer_stops_our_opens_and_leaves_streams_alone() -> None:
    session = client()
    stream = established(session)
    assert session.receive(frame(GO_AWAY, 0, 0, 0), 0.0) == [GoneAway(0)]
    with pytest.raises(ConnectionLost):
        session.open(0.0)
    session.receive(data(FIN, stream.id, b"rest"), 0.0)
    assert stream.take(10) == b"rest"


def test_our_goaway_refuses_the_peers_streams_and_leaves_others_alone() -> None:
    session = server()
    stream = opened(session)
    assert frames(session.go_away(GoAwayCode.NORMAL)) == [(GO_AWAY, 0, 0, 0)]
    assert session.go_away(GoAwayCode.NORMAL) == b""
    session.receive(data(SYN, 3, b"") + data(0, 1, b"still"), 0.0)
    assert frames(session.take_outgoing()) == [(WINDOW_UPDATE, RST, 3, 0)]
    assert stream.take(10) == b"still"


# --- keepalive ----------------------------------------------------------------------------------------------


def test_an_idle_connection_is_probed_and_declared_dead() -> None:
    session = server(keepalive_interval=4.0, keepalive_timeout=3.0)
    due = session.next_timer()
    assert due == 4.0
    assert session.on_timer(due) == []
    assert [kind for kind, *_ in frames(session.take_outgoing())] == [PING]
    assert session.next_timer() == due + 3.0
    assert session.on_timer(due + 3.0) == [Dead()]


def test_any_byte_proves_that_the_peer_lives() -> None:
    session = server(keepalive_interval=4.0, keepalive_timeout=3.0)
    session.on_timer(4.0)
    session.receive(frame(WINDOW_UPDATE, 0, 1, 0)[:1], 5.0)
    assert session.on_timer(7.0) == []
    assert session.next_timer() == 9.0


def test_unanswered_probes_do_not_pile_up() -> None:
    session = server(pings=4)
    now = 0.0
    for _ in range(8):
        now = session.next_timer()
        session.on_timer(now)
        session.receive(frame(GO_AWAY, 0, 0, 0), now)
    assert len(session.liveness.pings) <= 4


def test_a_busy_connection_measures_its_round_trip() -> None:
    session = server(rtt_interval=6.0)
    session.receive(frame(WINDOW_UPDATE, 0, 1, 0), 5.0)
    assert session.next_timer() == 6.0
    session.on_timer(6.0)
    assert [kind for kind, *_ in frames(session.take_outgoing())] == [PING]


def test_a_fresh_connection_measures_a_few_times_in_a_row() -> None:
    session = client(rtt_samples=3)
    value, _ = session.ping(0.0)
    for turn in (1.0, 2.0):
        session.receive(frame(PING, ACK, 0, value), turn)
        ((kind, flags, _, value),) = frames(session.take_outgoing())
        assert (kind, flags) == (PING, SYN)
    session.receive(frame(PING, ACK, 0, value), 3.0)
    assert session.take_outgoing() == b""
