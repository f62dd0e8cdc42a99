"""Circuit relay v2 messages (specs/relay/circuit-v2): hop and stop, as frozen values instead of protobuf objects.

Both directions are here, so that client and relay share one table of statuses. It is told the payload of one
length-prefixed message and answers with a value or a typed error; it holds no reservation and opens no stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, cast

from punchbridge.addresses import Multiaddr, decode, endpoint_of, is_relayed
from punchbridge.errors import AddressError, ProtocolViolation
from punchbridge.identity import PeerId
from punchbridge.wire import messages as pb

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"

MAX_RELAY_ADDRS: Final = 16
"""Relay addresses kept of one reservation: IPv4 and IPv6 of several uplinks. The message limit would allow 400."""

MAX_PEER_ID: Final = 64
"""Bytes. The longest peer id is an identity multihash of a 42-byte key, 44 bytes (specs/peer-ids)."""

U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1


class Status(IntEnum):
    """The status table of the specification."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


def status_name(status: int) -> str:
    """The table's name, or STATUS_<number> for a number that it does not hold."""
    try:
        return Status(status).name
    except ValueError:
        return f"STATUS_{status}"


class MalformedMessage(ProtocolViolation):
    """The message cannot be decoded or lacks a field that its type needs; it is answered by status 400."""


class UnexpectedMessage(ProtocolViolation):
    """The message is well formed, but of a type that has no place here; it is answered by status 401."""


@dataclass(frozen=True)
class CircuitLimit:
    """What a relay grants one circuit: `seconds` in all, `bytes` in each direction. None means unlimited (R3, R4)."""

    seconds: int | None = None
    bytes: int | None = None

    @property
    def unlimited(self) -> bool:
        return self.seconds is None and self.bytes is None


@dataclass(frozen=True)
class Reserve:
    """The sender asks for a reservation. Who it is for is the connection's peer, never a field of the message (R12)."""


@dataclass(frozen=True)
class Connect:
    """Hop: the sender asks for a circuit to `peer`. Stop: the relay offers a circuit from `peer`, which it sees at
    `seen`, when it tells that (R16)."""

    peer: PeerId
    limit: CircuitLimit | None = None
    seen: Multiaddr | None = None


@dataclass(frozen=True)
class Grant:
    """A reservation as the relay words it. `expire`: UTC seconds, any u64; `addrs`: the relay's own (R2)."""

    expire: int
    addrs: tuple[Multiaddr, ...] = ()
    voucher: bytes = b""


@dataclass(frozen=True)
class Answer:
    """A STATUS message. `status` may be a number outside the table; see status_name. `seen`: where the relay sees the
    target, in the answer to CONNECT of a relay that tells it (R16)."""

    status: int
    grant: Grant | None = None
    limit: CircuitLimit | None = None
    seen: Multiaddr | None = None


HopRequest = Reserve | Connect


def decode_hop_request(payload: bytes) -> HopRequest:
    """Reads what a client sends to a relay. Raises MalformedMessage (400) or UnexpectedMessage (401)."""
    message = _parse(pb.HopMessage, payload)
    if not message.HasField("type"):
        raise MalformedMessage("a hop message without a type")
    if message.type == pb.HopMessage.RESERVE:
        return Reserve()
    if message.type == pb.HopMessage.CONNECT:
        return Connect(_peer(message))
    raise UnexpectedMessage(f"a hop message of type {message.type} where a request belongs")


def decode_hop_answer(payload: bytes) -> Answer:
    """Reads a relay's answer. Raises MalformedMessage or UnexpectedMessage; malformed addresses are skipped (F5)."""
    message = _parse(pb.HopMessage, payload)
    if not message.HasField("type") or message.type != pb.HopMessage.STATUS:
        raise UnexpectedMessage("the relay answered with another hop message than STATUS")
    grant = None
    if message.HasField("reservation"):
        if not message.reservation.HasField("expire"):
            raise MalformedMessage("a reservation without an expiry")
        decoded = (decode(raw) for raw in message.reservation.addrs[:MAX_RELAY_ADDRS])
        addrs = tuple(addr for addr in decoded if addr is not None)
        grant = Grant(int(message.reservation.expire), addrs, bytes(message.reservation.voucher))
    return Answer(_status(message), grant, _limit(message), _seen(message))


def decode_stop_request(payload: bytes) -> Connect:
    """Reads what a relay sends to a target. Raises MalformedMessage (400) or UnexpectedMessage (401)."""
    message = _parse(pb.StopMessage, payload)
    if not message.HasField("type"):
        raise MalformedMessage("a stop message without a type")
    if message.type != pb.StopMessage.CONNECT:
        raise UnexpectedMessage(f"a stop message of type {message.type} where CONNECT belongs")
    return Connect(_peer(message), _limit(message), _seen(message))


def decode_stop_answer(payload: bytes) -> Answer:
    """Reads a target's answer. Raises MalformedMessage or UnexpectedMessage."""
    message = _parse(pb.StopMessage, payload)
    if not message.HasField("type") or message.type != pb.StopMessage.STATUS:
        raise UnexpectedMessage("the target answered with another stop message than STATUS")
    return Answer(_status(message))


def encode_reserve() -> bytes:
    return _bytes(pb.HopMessage(type=pb.HopMessage.RESERVE))


def encode_hop_connect(target: PeerId) -> bytes:
    return _bytes(pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=target.to_bytes())))


def encode_hop_answer(
    status: int,
    grant: Grant | None = None,
    limit: CircuitLimit | None = None,
    *,
    target: PeerId | None = None,
    seen: Multiaddr | None = None,
) -> bytes:
    """A relay's answer. A grant's addresses end in the relay's /p2p part, without /p2p-circuit (R2). `seen`: where the
    relay sees the target of a circuit (R16)."""
    message = pb.HopMessage(type=pb.HopMessage.STATUS, status=cast(Any, int(status)))
    if grant is not None:
        message.reservation.expire = min(max(grant.expire, 0), U64_MAX)
        message.reservation.addrs.extend(_raw(grant.addrs))
        if grant.voucher:
            message.reservation.voucher = grant.voucher
    _put_limit(message, limit)
    if target is not None and seen is not None:
        message.peer.id = target.to_bytes()
        message.peer.addrs.append(seen.to_bytes())
    return _bytes(message)


def encode_stop_connect(source: PeerId, limit: CircuitLimit | None = None, *, seen: Multiaddr | None = None) -> bytes:
    """A relay's offer. `seen`: where it sees the source (R16)."""
    message = pb.StopMessage(type=pb.StopMessage.CONNECT, peer=pb.PeerId(id=source.to_bytes()))
    if seen is not None:
        message.peer.addrs.append(seen.to_bytes())
    _put_limit(message, limit)
    return _bytes(message)


def encode_stop_answer(status: int) -> bytes:
    return _bytes(pb.StopMessage(type=pb.StopMessage.STATUS, status=cast(Any, int(status))))


def decode_peer(raw: bytes) -> PeerId:
    """A peer id from its multihash. Raises MalformedMessage."""
    if not 2 <= len(raw) <= MAX_PEER_ID:
        raise MalformedMessage(f"a peer id of {len(raw)} bytes")
    try:
        return PeerId(raw)
    except AddressError:
        raise MalformedMessage("a peer id that is no multihash of a key") from None


def _parse(kind: type[Any], payload: bytes) -> Any:
    try:
        return kind.FromString(payload)
    except pb.DecodeError as problem:
        raise MalformedMessage(f"not a circuit message ({problem})") from None


def _peer(message: pb.HopMessage | pb.StopMessage) -> PeerId:
    if not message.HasField("peer"):
        raise MalformedMessage("a CONNECT without a peer")
    # R9: dialling the addresses in the message (active relay) is deprecated; they are not even decoded.
    return decode_peer(message.peer.id)


def _seen(message: pb.HopMessage | pb.StopMessage) -> Multiaddr | None:
    """R16: a relay writes one address. What is no numeric address of a known transport is skipped (F5)."""
    addr = decode(message.peer.addrs[0]) if message.peer.addrs else None
    endpoint = None if addr is None or is_relayed(addr) else endpoint_of(addr)
    return addr if endpoint is not None and endpoint.kind in ("ip4", "ip6") else None


def _status(message: pb.HopMessage | pb.StopMessage) -> int:
    if not message.HasField("status") or message.status == 0:
        raise MalformedMessage("a STATUS without a status")
    return int(message.status)


def _limit(message: pb.HopMessage | pb.StopMessage) -> CircuitLimit | None:
    """R3: an absent limit is none at all; zero leaves that dimension unlimited."""
    if not message.HasField("limit"):
        return None
    limit = CircuitLimit(int(message.limit.duration) or None, int(message.limit.data) or None)
    return None if limit.unlimited else limit


def _put_limit(message: pb.HopMessage | pb.StopMessage, limit: CircuitLimit | None) -> None:
    if limit is None or limit.unlimited:
        return
    message.limit.duration = min(max(limit.seconds or 0, 0), U32_MAX)
    message.limit.data = min(max(limit.bytes or 0, 0), U64_MAX)


def _raw(addrs: Iterable[Multiaddr]) -> list[bytes]:
    return [addr.to_bytes() for addr in addrs][:MAX_RELAY_ADDRS]


def _bytes(message: pb.HopMessage | pb.StopMessage) -> bytes:
    payload: bytes = message.SerializeToString()
    return payload
