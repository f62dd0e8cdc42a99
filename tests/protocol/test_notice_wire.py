"""The message of /punchbridge/notice/1.0.0: what goes over the wire, its bounds, and any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import ProtocolViolation
from punchbridge.wire.notice import MAX_NOTICE, NoticeCode, decode_notice, encode_notice


def test_the_form_of_the_message() -> None:
    assert encode_notice(NoticeCode.REPLACED_BY_SAME_KEY) == b"\x08\x01"
    assert encode_notice(NoticeCode.SAME_KEY_ELSEWHERE) == b"\x08\x02"


@pytest.mark.parametrize("code", NoticeCode)
def test_the_code_arrives_whatever_a_later_version_adds(code: NoticeCode) -> None:
    assert decode_notice(encode_notice(code)) is code
    assert decode_notice(encode_notice(code) + b"\x12\x04more") is code


def test_a_code_of_a_later_version_is_none_of_ours() -> None:
    assert decode_notice(b"\x08\x63") is None


@pytest.mark.parametrize("raw", [b"", b"\x08\x00", b"\x08", b"\x08\x01" + bytes(MAX_NOTICE)])
def test_what_is_no_notice_is_a_violation(raw: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="notice"):
        decode_notice(raw)


@given(st.binary(max_size=MAX_NOTICE + 8))
def test_any_bytes_are_a_notice_or_a_violation(raw: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        assert decode_notice(raw) in (None, *NoticeCode)
