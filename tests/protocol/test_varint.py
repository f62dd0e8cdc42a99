"""Unsigned varints and length-prefixed messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import ProtocolViolation
from punchbridge.wire import varint


@pytest.mark.parametrize(
    ("value", "raw"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16384, "808001")]
)
def test_known_forms(value: int, raw: str) -> None:
    assert varint.encode(value) == bytes.fromhex(raw)
    assert varint.decode(bytes.fromhex(raw)) == (value, len(raw) // 2)


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_inside_other_bytes(value: int, before: bytes, behind: bytes) -> None:
    raw = varint.encode(value)
    assert varint.decode(before + raw + behind, len(before)) == (value, len(before) + len(raw))
    for end in range(len(raw)):
        assert varint.decode(raw[:end]) is None


@pytest.mark.parametrize("value", [-1, 2**63])
def test_values_that_do_not_fit(value: int) -> None:
    with pytest.raises(ValueError, match="63 bits"):
        varint.encode(value)


@pytest.mark.parametrize("raw", ["8000", "808000", "ff8000"])
def test_a_form_that_is_not_minimal_is_a_violation(raw: str) -> None:
    with pytest.raises(ProtocolViolation, match="minimal"):
        varint.decode(bytes.fromhex(raw))


def test_more_than_nine_bytes_are_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="longer than 9"):
        varint.decode(b"\xff" * 9)


@given(st.binary(max_size=12))
def test_any_bytes_decode_to_their_own_encoding_or_fail(raw: bytes) -> None:
    try:
        found = varint.decode(raw)
    except ProtocolViolation:
        return
    if found is not None:
        value, end = found
        assert varint.encode(value) == raw[:end]


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_messages_come_out_one_by_one(messages: list[bytes]) -> None:
    raw = b"".join(map(varint.prefixed, messages))
    for message in messages:
        taken = varint.split(raw, 4096)
        assert taken is not None
        assert taken[0] == message
        raw = raw[taken[1] :]
    assert raw == b""


def test_the_limit_does_not_count_the_prefix() -> None:
    assert varint.split(varint.prefixed(bytes(4096)), 4096) == (bytes(4096), 4098)


@pytest.mark.parametrize("announced", [4097, 2**40, 2**63 - 1])
def test_an_oversized_length_is_refused_before_the_message_is_there(announced: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"{announced} bytes"):
        varint.split(varint.encode(announced), 4096)
