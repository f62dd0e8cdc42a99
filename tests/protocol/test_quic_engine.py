"""The QUIC engine: two of them over loss, disorder, repetition and moves, with hostile datagrams and idle readers.

The crate has tests of its own (`native/quic/src/tests.rs`); here the calls are those that Python makes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchbridge.wire.tls_identity import verify_certificate
from tests.support.built import NOT_BUILT

if TYPE_CHECKING:
    import punchbridge_quic as quic
else:
    quic = pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

from tests.support.quic_engines import ACCEPTER, DIALLER, PORT, SETTINGS, Fate, Pair, Side, credentials, engine

NOW = datetime(2026, 7, 1, tzinfo=UTC)
FATES = st.builds(Fate, st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.1))


def pattern(stream: int, start: int, size: int) -> bytes:
    """Bytes that tell where they belong."""
    return bytes((stream * 7 + place) % 251 for place in range(start, start + size))


# --- the handshake ------------------------------------------------------------------------------------------


@given(FATES, st.integers(0, 1 << 32))
@settings(max_examples=20)
def test_each_learns_the_others_certificate_whatever_the_network_does(fate: Fate, seed: int) -> None:
    pair = Pair(fate, seed).connect()
    for side, number in ((pair.dialler, 2), (pair.accepter, 1)):
        (event,) = side.kinds[quic.CONNECTED]
        assert side.events[0] == event
        assert verify_certificate(event[3], NOW) == credentials(number)[0].peer_id


def test_the_engines_do_not_ask_the_clock_but_for_the_value_they_are_given() -> None:
    """The same datagrams at times a million seconds later lead to the same timers."""
    early, late = engine(1), engine(1)
    first, second = early.connect(ACCEPTER, PORT, 1.0), late.connect(ACCEPTER, PORT, 1e6 + 1.0)
    for core, connection, now in ((early, first, 1.0), (late, second, 1e6 + 1.0)):
        while core.transmit(connection, 1, now) is not None:
            pass
    soon, later = early.timer(first), late.timer(second)
    assert soon is not None
    assert later is not None
    assert later - soon == pytest.approx(1e6, abs=1e-4)


def test_who_answers_sends_again_sooner_than_who_asks() -> None:
    """Who asks may ask nobody, and few datagrams go there; who answers knows that somebody is there."""
    dialler, accepter = engine(1), engine(2)
    asking = dialler.connect(ACCEPTER, PORT, 1.0)
    packet = dialler.transmit(asking, 1, 1.0)
    assert packet is not None
    accepter.receive(packet[0], 0, DIALLER, PORT, None, 0, 1.0)
    answering = accepter.accept(accepter.attempts()[0][0], 1.0)
    while accepter.transmit(answering, 1, 1.0) is not None:
        pass
    assert dialler.timer(asking) == pytest.approx(1.0 + 3 * 0.333, abs=0.01)
    assert accepter.timer(answering) == pytest.approx(1.0 + 3 * 0.1, abs=0.01)


# --- streams over a bad network, with moves -----------------------------------------------------------------


ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 1), st.integers(0, 3), st.integers(1, 40000)),
    st.tuples(st.just("take"), st.integers(0, 1)),
    st.tuples(st.just("send"), st.integers(0, 1), st.sampled_from([1, 2, 64])),
    st.tuples(st.just("wait"), st.floats(0, 0.5)),
    st.tuples(st.just("move"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("ping"), st.integers(0, 1)),
)


@given(FATES, st.integers(0, 1 << 32), st.lists(ACTIONS, min_size=1, max_size=25), st.sampled_from(["cubic", "bbr"]))
def test_every_byte_arrives_once_and_in_order(fate: Fate, seed: int, actions: list[Any], congestion: str) -> None:
    """Writes, polls of either side and moves of the dialler in any order, back to where it was too, with its knowledge
    or a NAT's alone. A move leaves the old address deaf."""
    pair = Pair(seed=seed, congestion=congestion).connect()
    streams = [one for one in (pair.open(pair.dialler) for _ in range(4)) if one is not None]
    assert len(streams) == 4
    written = {(index, stream): 0 for index in (0, 1) for stream in streams}
    pings: list[tuple[Side, int]] = []
    for stream in streams:  # the accepter knows a stream once something has come on it
        written[0, stream] = pair.write(pair.dialler, stream, pattern(stream, 0, 1))
    pair.run(1, until=lambda: len(pair.accepter.kinds[quic.OPENED]) == 4)
    pair.fate = fate
    for action in actions:
        match action:
            case ("write", index, number, size):
                stream, side = streams[number], pair.sides[index]
                start = written[index, stream]
                written[index, stream] += pair.write(side, stream, pattern(stream, start, size))
            case ("take", index):
                pair.take_events(pair.sides[index])
            case ("send", index, most):
                pair.transmit(pair.sides[index], most)
            case ("wait", seconds):
                pair.run(seconds)
            case ("move", place, known):
                pair.dialler.host = f"198.51.100.{place}" if place else DIALLER
                if known:
                    assert pair.dialler.connection is not None
                    pair.dialler.engine.moved(pair.dialler.connection)
            case ("ping", index):
                connection = pair.sides[index].connection
                assert connection is not None
                pings.append((pair.sides[index], pair.sides[index].engine.ping(connection)))
    pair.fate = Fate()
    for side in pair.sides:
        assert side.connection is not None
        for stream in streams:
            side.engine.finish(side.connection, stream)
    pair.run(60, until=lambda: all(side.ended == set(streams) for side in pair.sides))
    for index, side in enumerate(pair.sides):
        for stream in streams:
            assert bytes(side.got[stream]) == pattern(stream, 0, written[1 - index, stream])
        assert not side.kinds[quic.LOST]
    pair.run(60)
    for side, ping in pings:
        assert [one for one in side.kinds[quic.PONG] if one[1] == ping] == [(quic.PONG, ping, 0, b"")]
    assert pair.accepter.connection is not None
    assert pair.accepter.engine.info(pair.accepter.connection).host == pair.dialler.host


def test_an_answer_that_was_sent_to_the_old_address_is_sent_again() -> None:
    """The peer's address changes, it asks, and the answer leaves before its new path was validated."""
    pair = Pair().connect()
    stream = pair.open(pair.dialler)
    assert stream is not None
    pair.write(pair.dialler, stream, b"x")
    pair.run(1)
    pair.dialler.host = "198.51.100.7"
    pair.write(pair.dialler, stream, b"again")
    moved = pair.now
    pair.poll()
    pair.run(5, until=lambda: bytes(pair.accepter.got[stream]) == b"xagain")
    pair.write(pair.accepter, stream, b"yes")
    pair.run(10, until=lambda: bool(pair.dialler.got[stream]))
    assert bytes(pair.dialler.got[stream]) == b"yes"
    assert pair.now - moved < 1.0


def test_an_address_that_was_not_proven_gets_three_bytes_for_one_at_most() -> None:
    """RFC 9000 section 8.1, for a handshake whose source is spoofed and that nobody goes on with."""
    pair = Pair()
    pair.dialler.connection = pair.dialler.engine.connect(ACCEPTER, PORT, pair.now)
    pair.transmit(pair.dialler)
    pair.dialler.host = "203.0.113.1"  # nobody is where the datagrams claim to come from
    pair.run(40)
    assert pair.bytes_to[ACCEPTER] > 1200
    assert pair.bytes_to[DIALLER] <= 3 * pair.bytes_to[ACCEPTER]


# --- readers that stop --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30000), max_size=12), st.integers(0, 1 << 32))
@settings(max_examples=20)
def test_a_sender_gets_credit_for_what_was_read_and_no_more(reads: list[int], seed: int) -> None:
    pair = Pair(Fate(loss=0.02), seed).connect()
    pair.accepter.reads = False
    stream = pair.open(pair.dialler)
    assert stream is not None
    window, written = SETTINGS["stream_window"], 0

    def fill() -> None:
        nonlocal written
        for _ in range(40):
            written += pair.write(pair.dialler, stream, pattern(stream, written, 8192))
            pair.run(0.5)

    fill()
    assert written == window
    for most in reads:
        pair.accepter.read(stream, most)
    pair.run(1)
    fill()
    taken = len(pair.accepter.got[stream])
    # The peer is told of credit once an eighth of the window is free.
    assert window + taken - window // 8 <= written <= window + taken
    pair.accepter.read(stream)
    assert bytes(pair.accepter.got[stream]) == pattern(stream, 0, written)


def test_a_stream_that_nobody_reads_leaves_the_others_alone() -> None:
    pair = Pair().connect()
    pair.accepter.reads = False
    stalled, other = pair.open(pair.dialler), pair.open(pair.dialler)
    assert stalled is not None
    assert other is not None
    for _ in range(40):
        pair.write(pair.dialler, stalled, bytes(8192))
        pair.run(0.2)
    total = 0
    while total < 1 << 20:
        total += pair.write(pair.dialler, other, pattern(other, total, 8192))
        pair.run(0.1)
        pair.accepter.read(other)
        assert pair.now < 2000
    assert bytes(pair.accepter.got[other]) == pattern(other, 0, len(pair.accepter.got[other]))


def test_stopping_gives_back_what_was_not_read() -> None:
    """A reader that goes away on each stream does not use up the connection's window."""
    pair = Pair().connect()
    pair.dialler.reads = pair.accepter.reads = False
    for _ in range(10):
        stream = pair.open(pair.dialler)
        assert stream is not None
        written = 0
        for _ in range(10):
            written += pair.write(pair.dialler, stream, bytes(8192))
            pair.run(0.2)
        assert written >= SETTINGS["stream_window"]
        assert pair.accepter.connection is not None
        assert pair.dialler.connection is not None
        pair.accepter.engine.stop(pair.accepter.connection, stream, 1)
        pair.accepter.engine.reset(pair.accepter.connection, stream, 1)
        pair.run(0.5)
        assert (quic.STOPPED, stream, 1, b"") in pair.dialler.kinds[quic.STOPPED]
        with pytest.raises(quic.StreamStopped):
            pair.write(pair.dialler, stream, b"x")
        pair.dialler.engine.reset(pair.dialler.connection, stream, 2)
        pair.run(0.5)


# --- hostile datagrams --------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.binary(max_size=1500), st.integers(0, 1500), st.sampled_from([DIALLER, "203.0.113.9"])),
        max_size=30,
    ),
    st.integers(0, 1 << 32),
)
def test_any_datagram_leaves_a_connection_as_it_is(datagrams: list[tuple[bytes, int, str]], seed: int) -> None:
    pair = Pair(seed=seed).connect()
    for data, segment, host in datagrams:
        pair.accepter.engine.receive(data, segment, host, PORT, None, seed % 256, pair.now)
        for attempt in pair.accepter.engine.attempts():
            pair.accept(attempt)
        pair.accepter.engine.replies()
    pair.still_works()


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 1500), st.integers(1, 255)), max_size=30))
def test_changed_datagrams_leave_a_connection_as_it_is(changes: list[tuple[int, int, int]]) -> None:
    pair = Pair()
    seen: list[bytes] = []
    put = pair.put

    def copy(datagram: bytes, source: str, to: str) -> None:
        if to == ACCEPTER:
            seen.append(datagram)
        put(datagram, source, to)

    pair.put = copy  # type: ignore[method-assign]
    pair.connect()
    stream = pair.open(pair.dialler)
    assert stream is not None
    pair.write(pair.dialler, stream, bytes(20000))
    pair.run(1)
    for number, place, change in changes:
        data = bytearray(seen[number % len(seen)])
        data[place % len(data)] ^= change
        pair.put(bytes(data), DIALLER, ACCEPTER)
        pair.run(0.01)
    pair.still_works()


def test_attempts_beyond_the_bound_are_dropped_and_decided_ones_leave_nothing() -> None:
    accepter = engine(2)
    for number in range(40):
        dialler = engine(number + 3)
        connection = dialler.connect(ACCEPTER, PORT, 1.0)
        made = dialler.transmit(connection, 1, 1.0)
        assert made is not None
        accepter.receive(made[0], 0, f"203.0.113.{number}", PORT, None, 0, 1.0)
    attempts = accepter.attempts()
    assert len(attempts) == SETTINGS["attempts"]
    assert accepter.attempts() == []
    for number, _, _, proven in attempts:
        assert not proven
        accepter.retry(number)
        with pytest.raises(quic.NoAttempt):
            accepter.retry(number)
    replies = accepter.replies()
    assert len(replies) == len(attempts)
    assert all(len(packet[0]) < 200 for packet in replies)
    assert accepter.connections() == 0


# --- the calls ----------------------------------------------------------------------------------------------


def test_buffers_of_any_kind_are_written() -> None:
    pair = Pair().connect()
    stream = pair.open(pair.dialler)
    assert stream is not None
    for data in (b"one", bytearray(b"two"), memoryview(b"xthree")[1:]):
        assert pair.dialler.connection is not None
        assert pair.dialler.engine.write(pair.dialler.connection, stream, data) == len(data)
    pair.run(1)
    assert bytes(pair.accepter.got[stream]) == b"onetwothree"


def test_faults_of_the_caller_are_told_as_such() -> None:
    pair = Pair().connect()
    core, connection = pair.dialler.engine, pair.dialler.connection
    assert connection is not None
    with pytest.raises(ValueError, match="no IP address"):
        core.connect("example.org", PORT, 9.0)
    with pytest.raises(quic.CannotConnect):
        core.connect(ACCEPTER, 0, 9.0)
    with pytest.raises(quic.NoConnection):
        core.events(connection + 1000)
    with pytest.raises(quic.NoStream):
        core.read(connection, 4000, 1)
    with pytest.raises(ValueError, match="32 bytes"):
        quic.Engine(b"", b"", quic.Settings(**SETTINGS), b"", b"")
    with pytest.raises(ValueError, match="certificate or key"):
        quic.Engine(b"", b"", quic.Settings(**SETTINGS), bytes(32), bytes(32))
    with pytest.raises(ValueError, match="vegas"):
        quic.Settings(**{**SETTINGS, "congestion": "vegas"})
    assert issubclass(quic.StreamReset, quic.QuicError)
