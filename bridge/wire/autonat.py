"""AutoNAT v2 (specs autonat-v2.md): its messages as bytes and as values.

What is decided from them stands in `punchbridge.reach.autonat`. The rules A1 to A11 stand in docs/wire-rules.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from punchbridge._pb.punchbridge.autonat.v2 import autonat_pb2 as pb
from punchbridge.addresses import Multiaddr
from punchbridge.errors import ProtocolViolation

__all__ = [
    "DATA_CHUNK",
    "DIAL_BACK",
    "DIAL_REQUEST",
    "MAX_ADDRS",
    "MAX_DATA",
    "MAX_MESSAGE",
    "MIN_DATA",
    "SILENCE",
    "Answer",
    "DataDue",
    "Request",
]

DIAL_REQUEST = "/libp2p/autonat/2/dial-request"
DIAL_BACK = "/libp2p/autonat/2/dial-back"

MAX_MESSAGE: Final = 8192
"""One message, length prefix not counted: a DialRequest of 50 addresses (go: 8192)."""

MAX_ADDRS: Final = 50
"""Addresses of one DialRequest; go's server refuses more."""

MIN_DATA: Final = 30_000
MAX_DATA: Final = 100_000
"""Bytes that a client pays before a dial to an IP that is not its own (specs/autonat: 30 000 to 100 000). A client
refuses a larger demand."""

DATA_CHUNK: Final = 4096
"""Bytes of one DialDataResponse (specs/autonat)."""

_STATUS = {0: "E_INTERNAL_ERROR", 100: "E_REQUEST_REJECTED", 101: "E_DIAL_REFUSED", 200: "OK"}
_DIAL_STATUS = {0: "UNUSED", 100: "E_DIAL_ERROR", 101: "E_DIAL_BACK_ERROR", 200: "OK"}


@dataclass(frozen=True)
class Request:
    """A DialRequest as decoded; addresses stay raw since their index counts."""

    addrs: tuple[bytes, ...]
    nonce: int


@dataclass(frozen=True)
class Answer:
    """A DialResponse. `status` OK makes `index` and `dial` meaningful."""

    status: str
    index: int = 0
    dial: str = "UNUSED"


SILENCE = Answer("NO_ANSWER", 0, "NO_ANSWER")
"""No answer is on the wire: the server had all it asked for and let the request die after a long while."""


@dataclass(frozen=True)
class DataDue:
    """The server wants `size` bytes before it dials the address `index`."""

    index: int
    size: int


def encode_request(addrs: Sequence[Multiaddr], nonce: int) -> bytes:
    raw = [addr.to_bytes() for addr in addrs[:MAX_ADDRS]]
    return _bytes(pb.Message(dial_request=pb.DialRequest(addrs=raw, nonce=nonce)))


def encode_answer(answer: Answer) -> bytes:
    response = pb.DialResponse(
        status=answer.status,
        addr_idx=answer.index,
        dial_status=answer.dial,
    )
    return _bytes(pb.Message(dial_response=response))


def encode_data_due(due: DataDue) -> bytes:
    return _bytes(pb.Message(dial_data_request=pb.DialDataRequest(addr_idx=due.index, num_bytes=due.size)))


def encode_data(size: int) -> bytes:
    """One DialDataResponse with min(size, DATA_CHUNK) bytes."""
    return _bytes(pb.Message(dial_data_response=pb.DialDataResponse(data=bytes(min(size, DATA_CHUNK)))))


def encode_dial_back(nonce: int) -> bytes:
    return _bytes(pb.DialBack(nonce=nonce))


def encode_dial_back_response() -> bytes:
    return _bytes(pb.DialBackResponse(status=pb.DialBackResponse.OK))


def decode_dial_back(data: bytes) -> int:
    """The nonce. Raises ProtocolViolation."""
    try:
        return int(pb.DialBack.FromString(_bounded(data)).nonce)
    except DecodeError as problem:
        raise ProtocolViolation(f"a malformed DialBack ({problem})") from None


def decode_dial_back_response(data: bytes) -> None:
    """Any well-formed response will do: the status table has the one value OK (A7)."""
    try:
        pb.DialBackResponse.FromString(_bounded(data))
    except DecodeError as problem:
        raise ProtocolViolation(f"a malformed DialBackResponse ({problem})") from None


def decode_for_server(data: bytes) -> Request | int:
    """A DialRequest, or the number of bytes of a DialDataResponse. Raises ProtocolViolation."""
    message = _message(data)
    kind = message.WhichOneof("msg")
    if kind == "dial_request":
        return Request(tuple(message.dial_request.addrs), int(message.dial_request.nonce))
    if kind == "dial_data_response":
        return len(message.dial_data_response.data)
    raise ProtocolViolation(f"AutoNAT: {kind} sent to a server")


def decode_for_client(data: bytes) -> Answer | DataDue:
    """A DialResponse or a DialDataRequest. Raises ProtocolViolation, also for a demand above MAX_DATA.

    Status codes that the specification does not know are reported as UNKNOWN, for the tally to discard (A7).
    """
    message = _message(data)
    kind = message.WhichOneof("msg")
    if kind == "dial_response":
        response = message.dial_response
        status = _STATUS.get(response.status, "UNKNOWN")
        return Answer(status, int(response.addr_idx), _DIAL_STATUS.get(response.dial_status, "UNKNOWN"))
    if kind == "dial_data_request":
        due = DataDue(int(message.dial_data_request.addr_idx), int(message.dial_data_request.num_bytes))
        if due.size > MAX_DATA:
            raise ProtocolViolation(f"AutoNAT: the server wants {due.size} bytes; at most {MAX_DATA} are given")
        return due
    raise ProtocolViolation(f"AutoNAT: {kind} sent to a client")


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE:
        raise ProtocolViolation(f"an AutoNAT message of {len(data)} bytes; at most {MAX_MESSAGE} are allowed")
    return data


def _message(data: bytes) -> pb.Message:
    try:
        return pb.Message.FromString(_bounded(data))
    except DecodeError as problem:
        raise ProtocolViolation(f"a malformed AutoNAT message ({problem})") from None


def _bytes(message: object) -> bytes:
    data: bytes = message.SerializeToString()  # type: ignore[attr-defined]
    return data
