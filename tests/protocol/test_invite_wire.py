"""The messages of /punchbridge/invite/1.0.0: what goes over the wire, its bounds, and any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.access.invitations import WORDS, Outcome
from punchbridge.access.secret import SECRET_SIZE, Secret
from punchbridge.errors import ProtocolViolation
from punchbridge.wire.invite import (
    MAX_INVITE,
    InviteAnswer,
    decode_invite_answer,
    decode_invite_request,
    encode_invite_answer,
    encode_invite_request,
)

SECRET = Secret(b"0123456789abcdef")


def test_the_form_of_both_messages() -> None:
    assert encode_invite_request(SECRET) == b"\x0a\x10" + SECRET.to_bytes()
    assert [encode_invite_answer(one) for one in Outcome] == [bytes((0x08, number)) for number in range(1, 6)]
    assert encode_invite_answer(Outcome.EXPIRED, "gone") == b"\x08\x03\x12\x04gone"


@given(st.binary(min_size=SECRET_SIZE, max_size=SECRET_SIZE))
def test_the_secret_arrives(raw: bytes) -> None:
    assert decode_invite_request(encode_invite_request(Secret(raw))) == Secret(raw)


@given(st.sampled_from(Outcome), st.text(max_size=700))
def test_the_answer_arrives_within_its_bound(outcome: Outcome, text: str) -> None:
    data = encode_invite_answer(outcome, text)
    assert len(data) <= MAX_INVITE
    answer = decode_invite_answer(data)
    assert answer.outcome is outcome
    assert answer.text.isprintable()
    if text.isprintable() and len(text.encode()) <= 300:
        assert answer.text == text


def test_our_own_words_arrive_whole() -> None:
    for outcome, text in WORDS.items():
        assert decode_invite_answer(encode_invite_answer(outcome, text)) == InviteAnswer(outcome, text)


@given(st.binary(max_size=MAX_INVITE + 20))
def test_any_bytes_are_a_message_or_a_violation(raw: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        assert len(decode_invite_request(raw).to_bytes()) == SECRET_SIZE
    with contextlib.suppress(ProtocolViolation):
        assert decode_invite_answer(raw).text.isprintable()


@pytest.mark.parametrize("raw", [b"", b"\x0a\x0f" + bytes(15), b"\x0a\x11" + bytes(17), b"\x0a\x10short", b"\x08\x01"])
def test_what_is_no_secret(raw: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="malformed invite"):
        decode_invite_request(raw)


def test_what_is_no_answer() -> None:
    for raw in (b"", b"\x08\x00", b"\x12\x01x"):
        with pytest.raises(ProtocolViolation, match="without a status"):
            decode_invite_answer(raw)
    long = b"\x08\x01\x12\xf8\x03" + b"x" * 504 + b"\x18\x01"
    assert len(long) == MAX_INVITE - 1
    assert decode_invite_answer(long).text == "x" * 300
    for decode in (decode_invite_answer, decode_invite_request):
        with pytest.raises(ProtocolViolation, match="at most 512"):
            decode(long + b"\x20\x01")


def test_a_status_of_a_later_version_is_no_grant() -> None:
    assert decode_invite_answer(b"\x08\x63\x12\x02hm") == InviteAnswer(None, "hm")
