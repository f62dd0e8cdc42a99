"""Signed envelopes (libp2p RFC 2): bytes signed by an identity key for one domain.

A signature made for one purpose is worth nothing for another, since domain and payload type are signed too. The
payload is handed out only after the signature is verified; what it means is the caller's business.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from libp2p.crypto.exceptions import CryptographyError
from libp2p.crypto.keys import PublicKey
from libp2p.crypto.serialization import deserialize_public_key

from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity, PeerId
from punchbridge.wire import messages as pb

MAX_KEY: Final = 1100
"""Bytes of a public key: RSA with 8192 bits takes 1062. Larger keys only cost the verifier time (CVE-2023-39533)."""


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
    key = _public_key(envelope.public_key.Data, envelope.public_key.SerializeToString())
    signed = _signed_bytes(domain, envelope.payload_type, envelope.payload)
    try:
        genuine = key.verify(signed, envelope.signature)
    except (InvalidSignature, ValueError, TypeError, CryptographyError):
        genuine = False
    if not genuine:
        raise ProtocolViolation(f"the envelope's signature is wrong for domain {domain}")
    return Signed(PeerId.from_pubkey(key), bytes(envelope.payload_type), bytes(envelope.payload))


def _public_key(key: bytes, message: bytes) -> PublicKey:
    if not key or len(key) > MAX_KEY:
        raise ProtocolViolation(f"an envelope with a public key of {len(key)} bytes")
    try:
        return deserialize_public_key(message)
    except (ValueError, TypeError, KeyError, IndexError, CryptographyError, UnsupportedAlgorithm) as problem:
        raise ProtocolViolation(f"an envelope with an unusable public key ({problem})") from None


def _signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    out = bytearray()
    for field in (domain.encode(), payload_type, payload):
        out += _uvarint(len(field)) + field
    return bytes(out)


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
