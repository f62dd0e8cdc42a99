"""The message of /punchbridge/notice/1.0.0: what a relay tells a program about the reservation that it holds.

The relay opens the stream and sends one message behind its length. A program that takes the notice ends the stream; one
that it does not concern resets it. Pure: it opens no stream, and whom to believe is not its business.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from punchbridge.errors import ProtocolViolation
from punchbridge.wire import messages as pb

__all__ = ["MAX_NOTICE", "NOTICE", "NoticeCode", "decode_notice", "encode_notice"]

NOTICE: Final = "/punchbridge/notice/1.0.0"

MAX_NOTICE: Final = 64
"""Bytes of the message; today it has two, and later versions may say more."""


class NoticeCode(Enum):
    """What the relay says. The values are words of the interface, the numbers of the wire stand in the schema."""

    REPLACED_BY_SAME_KEY = "REPLACED_BY_SAME_KEY"
    """Another program with the same key has the reservation now."""
    SAME_KEY_ELSEWHERE = "SAME_KEY_ELSEWHERE"
    """Another program with the same key had the reservation before, and still runs."""


_NUMBERS: Final = {
    NoticeCode.REPLACED_BY_SAME_KEY: pb.Notice.REPLACED_BY_SAME_KEY,
    NoticeCode.SAME_KEY_ELSEWHERE: pb.Notice.SAME_KEY_ELSEWHERE,
}
_CODES: Final = {number: code for code, number in _NUMBERS.items()}


def encode_notice(code: NoticeCode) -> bytes:
    """The message, without its length."""
    data: bytes = pb.Notice(code=_NUMBERS[code]).SerializeToString()
    return data


def decode_notice(payload: bytes) -> NoticeCode | None:
    """What is told; None for a code of a later version. Raises ProtocolViolation for any bytes that are no notice."""
    if len(payload) > MAX_NOTICE:
        raise ProtocolViolation(f"a notice of {len(payload)} bytes; at most {MAX_NOTICE} are allowed")
    try:
        number = pb.Notice.FromString(payload).code
    except pb.DecodeError as problem:
        raise ProtocolViolation(f"a malformed notice ({problem})") from None
    if number == pb.Notice.NONE:
        raise ProtocolViolation("a notice without a code")
    return _CODES.get(number)
