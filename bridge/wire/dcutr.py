"""DCUtR's exchange (specs/relay/DCUtR.md): CONNECT, CONNECT, SYNC, and the moment at which each side dials.

`Opener` is the side whose relayed connection is inbound: it opens the stream and measures the round trip. `Answerer`
is the side that dialled over the relay. Whole messages and a clock go in; messages and the instant of the punch come
out. No candidate is judged here (`candidates` does that) and nothing is dialled.

Security and muxer roles follow this exchange, never the socket (D5): the answerer is the initiator of everything
above TCP, the opener the responder, except in an exchange with go-libp2p that `role_of` describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from google.protobuf.message import DecodeError

from punchbridge.addresses import Multiaddr
from punchbridge.errors import ProtocolViolation
from punchbridge.events import Role
from punchbridge.wire.messages import MAX_MESSAGE, HolePunch

__all__ = ["PROTOCOL", "Answerer", "Opener", "Schedule", "State", "decode_connect", "encode_connect", "role_of"]

PROTOCOL = "/libp2p/dcutr"
_MAX_RAW = 512
"""Addresses taken from one message for the filter to judge; 4096 bytes hold about 400."""

_SWAPPED_EXCHANGE = 3
_SWAPPING_AGENTS = ("go-libp2p", "kubo")


class State(Enum):
    """Where an exchange stands."""

    IDLE = auto()
    AWAIT_CONNECT = auto()
    CONNECTED = auto()
    """CONNECT of the peer is here; the caller decides whether to go on."""
    AWAIT_SYNC = auto()
    DONE = auto()


@dataclass(frozen=True)
class Schedule:
    """When to dial: `at` is on the caller's clock. `rtt` (s, over the relay) is None on the answering side."""

    at: float
    rtt: float | None = None


def encode_connect(addrs: Sequence[Multiaddr]) -> bytes:
    """CONNECT with our candidates, the first of them that fit into MAX_MESSAGE bytes."""
    message = HolePunch(type=HolePunch.CONNECT)
    for addr in addrs:
        message.ObsAddrs.append(addr.to_bytes())
        if message.ByteSize() > MAX_MESSAGE:
            message.ObsAddrs.pop()
            break
    data: bytes = message.SerializeToString()
    return data


def encode_sync() -> bytes:
    data: bytes = HolePunch(type=HolePunch.SYNC).SerializeToString()
    return data


def _decode(data: bytes, wanted: int) -> HolePunch:
    if len(data) > MAX_MESSAGE:
        raise ProtocolViolation(f"a DCUtR message of {len(data)} bytes; at most {MAX_MESSAGE} are allowed")
    try:
        message = HolePunch.FromString(data)
    except DecodeError as problem:
        raise ProtocolViolation(f"a malformed DCUtR message ({problem})") from None
    if not message.HasField("type"):  # required; this parser leaves the check to us
        raise ProtocolViolation("a DCUtR message without a type")
    if message.type != wanted:
        names: dict[int, str] = {HolePunch.CONNECT: "CONNECT", HolePunch.SYNC: "SYNC"}
        raise ProtocolViolation(f"DCUtR: {names.get(message.type, message.type)} where {names[wanted]} was due")
    return message


def decode_connect(data: bytes) -> tuple[bytes, ...]:
    """The raw addresses of a CONNECT, unjudged. Raises ProtocolViolation for anything else."""
    return tuple(_decode(data, HolePunch.CONNECT).ObsAddrs[:_MAX_RAW])


class Opener:
    """The side whose relayed connection is inbound (B in the specs)."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.rtt: float | None = None
        self._sent_at = 0.0

    def connect(self, addrs: Sequence[Multiaddr], now: float) -> bytes:
        """The CONNECT to send right now; the round trip is measured from `now` (monotonic seconds)."""
        _require(self.state is State.IDLE, "CONNECT was sent already")
        data = encode_connect(addrs)
        self.state, self._sent_at = State.AWAIT_CONNECT, now
        return data

    def receive(self, data: bytes, now: float) -> tuple[bytes, ...]:
        """Takes the peer's CONNECT; returns its raw addresses. Raises ProtocolViolation."""
        if self.state is not State.AWAIT_CONNECT:
            raise ProtocolViolation("DCUtR: a message that was not due")
        addrs = decode_connect(data)
        self.state, self.rtt = State.CONNECTED, max(0.0, now - self._sent_at)
        return addrs

    def sync(self, now: float) -> tuple[bytes, Schedule]:
        """The SYNC to send right now, and when to dial: half a round trip later, as it arrives there (D3)."""
        _require(self.state is State.CONNECTED and self.rtt is not None, "SYNC before CONNECT was answered")
        self.state = State.DONE
        rtt = self.rtt or 0.0
        return encode_sync(), Schedule(now + rtt / 2, rtt)


class Answerer:
    """The side that dialled over the relay (A in the specs)."""

    def __init__(self) -> None:
        self.state = State.AWAIT_CONNECT

    def receive(self, data: bytes, now: float) -> tuple[bytes, ...] | Schedule:
        """Takes CONNECT (returns the raw addresses) or SYNC (returns when to dial: now). Raises ProtocolViolation."""
        if self.state is State.AWAIT_CONNECT:
            addrs = decode_connect(data)
            self.state = State.CONNECTED
            return addrs
        if self.state is not State.AWAIT_SYNC:
            raise ProtocolViolation("DCUtR: a message that was not due")
        _decode(data, HolePunch.SYNC)
        self.state = State.DONE
        return Schedule(now)

    def answer(self, addrs: Sequence[Multiaddr]) -> bytes:
        """Our CONNECT in reply."""
        _require(self.state is State.CONNECTED, "there is no CONNECT to answer")
        data = encode_connect(addrs)
        self.state = State.AWAIT_SYNC
        return data


def role_of(side: Role, exchange: int, agent: str | None) -> Role:
    """Our role in security and muxer. `side`: initiator sent the CONNECT (opener), responder answered it.

    go-libp2p swaps the roles when it opens the third exchange on one relayed connection, to reach versions before
    0.41 whose roles were the wrong way round. The number is not on the wire, so both sides count (`exchange`, from 1).
    Towards such a peer we follow: as answerer we are the responder in the third, as opener the initiator in the
    third. A conclusion from its source; other implementations keep the roles fixed.
    """
    swapped = exchange == _SWAPPED_EXCHANGE and any(name in (agent or "") for name in _SWAPPING_AGENTS)
    return "initiator" if (side == "responder") != swapped else "responder"


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ValueError(text)
