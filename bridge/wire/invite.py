"""The messages of /punchbridge/invite/1.0.0: the secret of an invitation, and what the server says to it.

The stream is one of an authenticated and encrypted connection, so the secret is told to the server alone, and the peer
that it admits is the one that proved its id. One message each way behind its length, at most MAX_INVITE bytes; how long
that may take, `config.access` says. Pure: it keeps no invitation and opens no stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from punchbridge.access.invitations import Outcome
from punchbridge.access.secret import Secret
from punchbridge.errors import ProtocolViolation
from punchbridge.wire import messages as pb

__all__ = [
    "INVITE",
    "MAX_INVITE",
    "InviteAnswer",
    "decode_invite_answer",
    "decode_invite_request",
    "encode_invite_answer",
    "encode_invite_request",
]

INVITE: Final = "/punchbridge/invite/1.0.0"

MAX_INVITE: Final = 512
"""Bytes of one message."""

_MAX_TEXT: Final = 300
"""Bytes of an answer's text; a status and the tags take less than 20 more."""

_NUMBERS: Final = {
    Outcome.GRANTED: pb.InviteAnswer.GRANTED,
    Outcome.USED_UP: pb.InviteAnswer.USED_UP,
    Outcome.EXPIRED: pb.InviteAnswer.EXPIRED,
    Outcome.REVOKED: pb.InviteAnswer.REVOKED,
    Outcome.UNKNOWN: pb.InviteAnswer.UNKNOWN,
}
_OUTCOMES: Final = {number: outcome for outcome, number in _NUMBERS.items()}


@dataclass(frozen=True)
class InviteAnswer:
    """What the server said. `text` is of its making: printable, but not to be believed more than the peer itself.

    outcome: None for a status of a later version, which is no grant.
    """

    outcome: Outcome | None
    text: str = ""


def encode_invite_request(secret: Secret) -> bytes:
    """The question, without its length."""
    data: bytes = pb.InviteRequest(secret=secret.to_bytes()).SerializeToString()
    return data


def decode_invite_request(payload: bytes) -> Secret:
    """The secret that is shown. Raises ProtocolViolation, which does not quote it, for any bytes."""
    try:
        return Secret(bytes(_parse(pb.InviteRequest, payload).secret))
    except ValueError as problem:
        raise ProtocolViolation(f"a malformed invite request: {problem}") from None


def encode_invite_answer(outcome: Outcome, text: str = "") -> bytes:
    """The answer, without its length, always within MAX_INVITE bytes; a longer text is cut."""
    short = text.encode("utf-8", "replace")[:_MAX_TEXT].decode("utf-8", "ignore")
    data: bytes = pb.InviteAnswer(status=_NUMBERS[outcome], text=short).SerializeToString()
    return data


def decode_invite_answer(payload: bytes) -> InviteAnswer:
    """Reads the server's answer. Raises ProtocolViolation, for any bytes that are none."""
    message = _parse(pb.InviteAnswer, payload)
    if message.status == pb.InviteAnswer.NONE:
        raise ProtocolViolation("an invite answer without a status")
    text = "".join(one if one.isprintable() else " " for one in message.text[:_MAX_TEXT])
    return InviteAnswer(_OUTCOMES.get(message.status), text)


def _parse(kind: type[Any], payload: bytes) -> Any:
    if len(payload) > MAX_INVITE:
        raise ProtocolViolation(f"an invite message of {len(payload)} bytes; at most {MAX_INVITE} are allowed")
    try:
        return kind.FromString(payload)
    except pb.DecodeError as problem:
        raise ProtocolViolation(f"a malformed invite message ({problem})") from None
