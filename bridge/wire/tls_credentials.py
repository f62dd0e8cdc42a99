"""What TLS shows for an identity: a certificate with a fresh key, and libp2p's extension in it (specs/tls).

It is written here, in DER, since it always has one form; whoever reads those of others needs all of X.509
(`punchbridge.wire.tls_identity`), which a program that only waits for connections does without. Pure but for the fresh
key; the wall clock comes from the caller.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from punchbridge.identity import Identity

__all__ = ["OCTETS", "PREFIX", "SEQUENCE", "Credentials", "encode_signed_key", "make_credentials"]

PREFIX: Final = b"libp2p-tls-handshake:"
"""The identity signs it and the certificate's key behind it (TL5)."""

SEQUENCE, OCTETS = 0x30, 0x04
_SET, _INTEGER, _BITS, _OID, _PRINTABLE = 0x31, 0x02, 0x03, 0x06, 0x13
_UTC_TIME, _TIME, _VERSION, _EXTENSIONS = 0x17, 0x18, 0xA0, 0xA3

_ECDSA_SHA256: Final = bytes.fromhex("2a8648ce3d040302")
"""1.2.840.10045.4.3.2 (RFC 5758)."""
_SERIAL_NUMBER: Final = bytes.fromhex("550405")
"""2.5.4.5, a name that is a number (RFC 5280 appendix A.1)."""
_EXTENSION: Final = bytes.fromhex("2b0601040183a25a0101")
"""1.3.6.1.4.1.53594.1.1 (TL3)."""

_VALID_BEFORE: Final = timedelta(hours=1)
"""A peer's clock may be late by so much; go has the same."""
_VALID_FOR: Final = timedelta(days=365 * 100)
"""The key lives as long as the process; go has the same hundred years."""


@dataclass(frozen=True)
class Credentials:
    """What TLS shows for an identity: `certificate` in DER, and its private `key` as PKCS #8 in DER."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_credentials(identity: Identity, now: datetime) -> Credentials:
    """A self-signed certificate with a fresh P-256 key, which the identity vouches for (TL3, TL5).

    `now` is a moment with a time zone. The certificate is valid from the day (UTC) that it was an hour before, for a
    hundred years. Whoever reads it learns no time of day: neither since when a program runs nor how its clock goes.
    """
    day = (now.astimezone(UTC) - _VALID_BEFORE).replace(hour=0, minute=0, second=0, microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = encode_signed_key(identity.public_key.serialize(), identity.sign(PREFIX + spki))
    # As random as the key; 63 bits, as go has them. RFC 5280 section 4.1.2.4 wants a name of the issuer, for which go
    # and rust put a number too.
    serial = int.from_bytes(hashlib.sha256(spki).digest()[:8]) >> 1 | 1
    text = _element(_PRINTABLE, str(serial).encode())
    name = _element(SEQUENCE, _element(_SET, _element(SEQUENCE, _element(_OID, _SERIAL_NUMBER) + text)))
    algorithm = _element(SEQUENCE, _element(_OID, _ECDSA_SHA256))
    # Not critical: TLS libraries that know nothing of it read the certificate all the same.
    extension = _element(SEQUENCE, _element(_OID, _EXTENSION) + _element(OCTETS, value))
    signed = _element(
        SEQUENCE,
        _element(_VERSION, _integer(2))  # the third one
        + _integer(serial)
        + algorithm
        + name
        + _element(SEQUENCE, _time(day) + _time(day + _VALID_FOR))
        + name
        + spki
        + _element(_EXTENSIONS, _element(SEQUENCE, extension)),
    )
    signature = key.sign(signed, ec.ECDSA(SHA256()))
    return Credentials(
        _element(SEQUENCE, signed + algorithm + _element(_BITS, b"\0" + signature)),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    )


def encode_signed_key(public: bytes, signature: bytes) -> bytes:
    """`SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }` (TL4)."""
    return _element(SEQUENCE, _element(OCTETS, public) + _element(OCTETS, signature))


def _element(tag: int, body: bytes) -> bytes:
    """A tag, the length in its shortest form, and the body."""
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def _integer(value: int) -> bytes:
    return _element(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _time(moment: datetime) -> bytes:
    """Two digits of the year until 2049, then four (RFC 5280 section 4.1.2.5)."""
    if moment.year < 2050:
        return _element(_UTC_TIME, f"{moment:%y%m%d%H%M%SZ}".encode())
    return _element(_TIME, f"{moment:%Y%m%d%H%M%SZ}".encode())
