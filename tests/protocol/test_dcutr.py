"""The DCUtR exchange (D1 to D16 of docs/wire-rules.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import parse, tcp_addr
from punchbridge.errors import ProtocolViolation
from punchbridge.wire.dcutr import (
    Answerer,
    Opener,
    Schedule,
    State,
    decode_connect,
    encode_connect,
    encode_sync,
    role_of,
)
from punchbridge.wire.messages import MAX_MESSAGE, HolePunch

ADDRS = (parse("/ip4/11.1.0.2/tcp/4001"), parse("/ip6/2600::1/tcp/4001"))
RAW = tuple(addr.to_bytes() for addr in ADDRS)


def run(start: float, up: float, down: float, think: float = 0.0) -> tuple[Schedule, Schedule]:
    """One exchange over a link with the given one-way delays; returns both schedules, opener first."""
    opener, answerer = Opener(), Answerer()
    now = start
    hello = opener.connect(ADDRS, now)
    now += up
    assert answerer.receive(hello, now) == RAW
    reply = answerer.answer(ADDRS[:1])
    now += think + down
    assert opener.receive(reply, now) == RAW[:1]
    sync, mine = opener.sync(now)
    theirs = answerer.receive(sync, now + up)
    assert isinstance(theirs, Schedule)
    assert (opener.state, answerer.state) == (State.DONE, State.DONE)
    return mine, theirs


@given(st.floats(0, 1e6), st.floats(0, 30))
def test_both_sides_dial_at_the_same_instant_on_a_symmetric_link(start: float, delay: float) -> None:
    mine, theirs = run(start, delay, delay)
    assert mine.at == pytest.approx(theirs.at, abs=1e-6)
    assert mine.rtt == pytest.approx(2 * delay, abs=1e-6)
    assert theirs.rtt is None


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5))
def test_an_uneven_link_shifts_the_instants_by_half_the_difference(up: float, down: float, think: float) -> None:
    mine, theirs = run(0.0, up, down, think)
    assert mine.at - theirs.at == pytest.approx((down + think - up) / 2, abs=1e-6)


def test_the_wire_format_is_the_specification_s() -> None:
    assert encode_sync() == bytes.fromhex("08ac02")
    assert encode_connect(ADDRS[:1]) == bytes.fromhex("08641208040b010002060fa1")
    assert decode_connect(encode_connect(ADDRS)) == RAW
    assert decode_connect(encode_connect(())) == ()


def test_a_connect_has_the_first_candidates_that_fit() -> None:
    many = [tcp_addr("11.1.0.2", port) for port in range(1, 1000)]
    data = encode_connect(many)
    told = decode_connect(data)
    assert list(told) == [addr.to_bytes() for addr in many[: len(told)]]
    assert len(data) <= MAX_MESSAGE < len(data) + len(told[0]) + 2


def test_4096_bytes_are_taken_and_4097_refused() -> None:
    def padded(size: int) -> bytes:
        message = HolePunch(type=HolePunch.CONNECT)
        message.ObsAddrs.append(b"")
        message.ObsAddrs[0] = bytes(size - len(message.SerializeToString()) - 1)
        return message.SerializeToString()

    assert len(padded(MAX_MESSAGE)) == MAX_MESSAGE
    assert len(Answerer().receive(padded(MAX_MESSAGE), 0.0)) == 1  # type: ignore[arg-type]
    with pytest.raises(ProtocolViolation, match="4097 bytes"):
        Answerer().receive(padded(MAX_MESSAGE + 1), 0.0)


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x08\x01", b"\x12\x00", encode_sync(), b"\xff" * 20])
def test_the_first_message_must_be_a_connect(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Answerer().receive(data, 0.0)
    opener = Opener()
    opener.connect(ADDRS, 0.0)
    with pytest.raises(ProtocolViolation):
        opener.receive(data, 1.0)


def test_messages_out_of_turn_are_refused() -> None:
    hello = encode_connect(ADDRS)
    answerer = Answerer()
    answerer.receive(hello, 0.0)
    with pytest.raises(ProtocolViolation, match="not due"):
        answerer.receive(hello, 0.0)
    answerer.answer(ADDRS)
    with pytest.raises(ProtocolViolation, match="CONNECT where SYNC was due"):
        answerer.receive(hello, 0.0)
    with pytest.raises(ProtocolViolation, match="not due"):
        Opener().receive(hello, 0.0)
    with pytest.raises(ValueError, match="before CONNECT"):
        Opener().sync(0.0)
    with pytest.raises(ValueError, match="no CONNECT"):
        Answerer().answer(ADDRS)


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_any_bytes_end_in_a_violation_or_progress(messages: list[bytes]) -> None:
    answerer, opener = Answerer(), Opener()
    opener.connect(ADDRS, 0.0)
    for machine in (answerer, opener):
        for data in messages:
            try:
                machine.receive(data, 1.0)
            except ProtocolViolation:
                break


@pytest.mark.parametrize(
    ("side", "exchange", "agent", "role"),
    [
        ("initiator", 1, "punchbridge/0.1.0", "responder"),
        ("responder", 1, "punchbridge/0.1.0", "initiator"),
        ("responder", 3, "punchbridge/0.1.0", "initiator"),
        ("responder", 3, None, "initiator"),
        ("responder", 3, "github.com/libp2p/go-libp2p@v0.43", "responder"),
        ("initiator", 3, "github.com/libp2p/go-libp2p@v0.38", "initiator"),
        ("responder", 2, "github.com/libp2p/go-libp2p@v0.43", "initiator"),
        ("responder", 4, "kubo/0.34.1/", "initiator"),
        ("responder", 3, "rust-libp2p/0.47", "initiator"),
    ],
)
def test_roles_follow_the_exchange_and_go_swaps_in_the_third(side, exchange, agent, role) -> None:  # type: ignore[no-untyped-def]
    assert role_of(side, exchange, agent) == role
