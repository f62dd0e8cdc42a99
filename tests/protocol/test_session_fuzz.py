"""What a hostile end may put into a carrier: any bytes and any frames, in any order, end typed and hold little."""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.config import SessionLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions import Attach, Session
from punchbridge.sessions.frames import HEADER, MAX_PAYLOAD, AttachedFrame, FrameReader, Kind, encode

ID = b"0123456789abcdef"
EDGES = [0, 1, 2, 5, 100, MAX_PAYLOAD, 1 << 20, (1 << 20) + 1, (1 << 63) - 1, (1 << 64) - 1]

values = st.one_of(st.sampled_from(EDGES), st.integers(0, 3000))
bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([0, 1, 1000, MAX_PAYLOAD]).map(bytes),
    st.sampled_from(EDGES).map(lambda edge: pack(">Q", edge)),
    st.builds(lambda generation, edge: pack(">BIQ", 1, generation, edge), st.integers(0, 9), st.sampled_from(EDGES)),
)
frames = st.builds(lambda kind, value, body: encode(kind, value, body), st.sampled_from(list(Kind)), values, bodies)
attaches = st.builds(
    Attach,
    st.just(ID),
    st.integers(0, 12),
    values,
    st.sampled_from(EDGES),
    st.booleans(),
    st.integers(0, 12),
)
steps = st.one_of(
    frames,
    attaches,
    st.sampled_from(["write", "read", "output", "finish", "tick"]),
)

LIMITS = SessionLimits()


def held(session: Session) -> int:
    """Bytes and frames that the session keeps."""
    incoming, outgoing = session.incoming, session.outgoing
    kept = sum(map(len, incoming._ahead.values()))
    assert kept == incoming._ahead_bytes <= 2 * incoming.window
    assert sorted(incoming._ahead) == sorted(incoming._ahead_order)
    assert len(incoming._ahead) <= LIMITS.ahead
    assert incoming.received <= incoming.edge
    assert 0 <= outgoing.acked <= outgoing.cursor <= outgoing.written
    assert outgoing.written - outgoing.acked <= outgoing.capacity
    return sum(len(carrier.control) for carrier in session._carriers.values())


@given(st.lists(steps, max_size=40))
def test_any_frames_end_typed_and_are_bounded_at_the_accepting_end(hostile: list[object]) -> None:
    session, now = Session(ID, "/x", dialling=False, now=0.0), 0.0
    session.attached_by(Attach(ID, 1, 0, 1 << 20, True, 0, "/x"), now)
    for step in hostile:
        now += 0.3
        _take(session, step, now)
        assert held(session) <= LIMITS.pongs + 100


@given(st.lists(steps, max_size=40), st.booleans())
def test_any_frames_end_typed_and_are_bounded_at_the_dialling_end(hostile: list[object], answered: bool) -> None:
    session, now = Session(ID, "/x", dialling=True, now=0.0), 0.0
    session.attach(now)
    if answered:
        session.received(1, AttachedFrame(1, 0, 1 << 20, False).encode(), now)
    for step in hostile:
        now += 0.3
        _take(session, session.attach(now) if isinstance(step, Attach) and not session.crowded else step, now)
        assert held(session) <= LIMITS.pongs + 100


def _take(session: Session, step: object, now: float) -> None:
    if isinstance(step, bytes):
        for generation in session.carriers:
            session.received(generation, step, now)
    elif isinstance(step, Attach) and not session.dialling:
        session.attached_by(step, now)
    elif step == "write":
        session.write(bytes(LIMITS.replay_least // 3), now)
    elif step == "read":
        session.read(1 << 16, now)
    elif step == "output":
        for generation in session.carriers:
            session.output(generation, 1 << 18, now)
            session.after_output(generation)
    elif step == "finish":
        session.finish()
    elif step == "tick":
        session.tick(now)


@given(st.binary(max_size=400), st.integers(1, 60))
def test_any_bytes_are_frames_or_a_violation(raw: bytes, step: int) -> None:
    reader = FrameReader()
    try:
        for start in range(0, len(raw), step):
            reader.feed(raw[start : start + step])
    except ProtocolViolation:
        return
    assert len(reader._kept) <= HEADER.size + MAX_PAYLOAD


@given(values, st.binary(max_size=330))
def test_any_body_is_an_attach_or_a_violation(value: int, body: bytes) -> None:
    for decode in (Attach.decode, AttachedFrame.decode):
        for whole in (body, b"\x01" + body):
            try:
                decode(value, whole)
            except ProtocolViolation:
                continue
