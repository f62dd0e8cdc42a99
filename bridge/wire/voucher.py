"""Reservation vouchers: a relay's signed word that it relays for a peer until a moment (specs/relay/circuit-v2).

Nothing here trusts a clock of its own: the caller passes the wall-clock seconds that it believes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity, PeerId, peer_text
from punchbridge.wire import messages as pb
from punchbridge.wire.circuit import U64_MAX, MalformedMessage, decode_peer
from punchbridge.wire.envelope import seal, unseal

DOMAIN: Final = "libp2p-relay-rsvp"

PAYLOAD_TYPE: Final = b"\x03\x02"
"""Multicodec 0x0302 as go, js and py write it: two plain bytes."""

PAYLOAD_TYPES: Final = frozenset({PAYLOAD_TYPE, b"\x82\x06"})
"""What is read: also the same code as a varint, the form that the multicodec table implies."""

CLOCK_SKEW: Final = 300
"""Seconds that the clocks of relay and client may differ before an expiry in the past counts as wrong."""


@dataclass(frozen=True)
class Voucher:
    """`relay` relays for `peer` until `expiration` (UTC seconds, any u64)."""

    relay: PeerId
    peer: PeerId
    expiration: int


def seal_voucher(relay: Identity, peer: PeerId, expiration: int) -> bytes:
    """The signed envelope with the relay's voucher for `peer`."""
    payload: bytes = pb.Voucher(
        relay=relay.peer_id.to_bytes(), peer=peer.to_bytes(), expiration=min(max(expiration, 0), U64_MAX)
    ).SerializeToString(deterministic=True)
    return seal(relay, DOMAIN, PAYLOAD_TYPE, payload)


def open_voucher(raw: bytes, *, relay: PeerId, peer: PeerId, now: float) -> Voucher:
    """Verifies a voucher that `relay` gave `peer`. `now`: UTC seconds. Raises ProtocolViolation, for any bytes."""
    signed = unseal(raw, DOMAIN, PAYLOAD_TYPES)
    try:
        message = pb.Voucher.FromString(signed.payload)
    except pb.DecodeError as problem:
        raise ProtocolViolation(f"the envelope holds no voucher ({problem})") from None
    try:
        voucher = Voucher(decode_peer(message.relay), decode_peer(message.peer), int(message.expiration))
    except MalformedMessage as problem:
        raise ProtocolViolation(f"the voucher holds {problem}") from None
    if voucher.relay != signed.signer:
        raise ProtocolViolation("the voucher names another relay than the one that signed it")
    if voucher.relay != relay:
        raise ProtocolViolation(f"the voucher is of relay {peer_text(voucher.relay)}, not of {peer_text(relay)}")
    if voucher.peer != peer:
        raise ProtocolViolation(f"the voucher is for {peer_text(voucher.peer)}, not for {peer_text(peer)}")
    if voucher.expiration < now - CLOCK_SKEW:
        raise ProtocolViolation("the voucher expired before it was given; check the clocks of both machines")
    return voucher
