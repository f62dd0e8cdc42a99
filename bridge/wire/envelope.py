"""Signed envelopes (libp2p RFC 2): bytes signed by an identity key for one domain.

A signature made for one purpose is worth nothing for another, since domain and payload type are signed too. The
payload is handed out only after the signature is verified; what it means is the caller's business.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity, PeerId
from punchbridge.keys import InvalidSignature, KeyRefused, PublicKey
from punchbridge.wire import messages as pb
from punchbridge.wire import varint


@dataclass(frozen=True)
class Signed:
    """A verified payload and who signed it."""

    signer: PeerId
    payload_type: bytes
    payload: bytes


def seal(identity: Identity, domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """The serialized envelope over `payload`, signed for `domain`."""
    envelope = pb.Envelope(payload_type=payload_type, payload=payload)
    envelope.public_key.ParseFromString(identity.public_key.serialize())
    envelope.signature = identity.sign(_signed_bytes(domain, payload_type, payload))
    sealed: bytes = envelope.SerializeToString()
    return sealed


def unseal(raw: bytes, domain: str, payload_types: Collection[bytes]) -> Signed:
    """Verifies an envelope and returns its payload. Raises ProtocolViolation with the reason, for any bytes.

    A type outside `payload_types` and a wrong signature are both refused before the payload is looked at.
    """
    try:
        envelope = pb.Envelope.FromString(raw)
    except pb.DecodeError as problem:
        raise ProtocolViolation(f"not a signed envelope ({problem})") from None
    if envelope.payload_type not in payload_types:
        raise ProtocolViolation(f"an envelope of payload type {envelope.payload_type.hex() or 'none'}")
    try:
        key = PublicKey.parse(envelope.public_key.SerializeToString())
        key.verify(_signed_bytes(domain, envelope.payload_type, envelope.payload), envelope.signature)
    except KeyRefused as problem:
        raise ProtocolViolation(f"an envelope with an unusable public key ({problem})") from None
    except InvalidSignature:
        raise ProtocolViolation(f"the envelope's signature is wrong for domain {domain}") from None
    return Signed(key.peer_id, bytes(envelope.payload_type), bytes(envelope.payload))


def _signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    out = bytearray()
    for field in (domain.encode(), payload_type, payload):
        out += varint.encode(len(field)) + field
    return bytes(out)
