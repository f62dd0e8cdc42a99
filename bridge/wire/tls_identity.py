"""Who stands behind a TLS certificate: libp2p's extension with the identity key and its signature (specs/tls).

The certificate's own key is fresh and says nothing; the extension binds it to an identity of any kind. Pure: the
wall clock comes from the caller. TLS itself, and that the peer holds the certificate's key, are the handshake's matter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from punchbridge.errors import AuthenticationFailed, WrongPeer
from punchbridge.identity import Identity, PeerId, peer_text
from punchbridge.keys import check_rsa
from punchbridge.wire.identity_key import verify_identity

__all__ = ["ALPN", "MAX_CERTIFICATE", "Credentials", "make_credentials", "verify_certificate"]

ALPN: Final = b"libp2p"
"""The application protocol that both sides offer (TL7)."""

MAX_CERTIFICATE: Final = 8192
"""Bytes. The largest one has RSA keys of 8192 bits on both levels and takes about 6000."""

EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
PREFIX: Final = b"libp2p-tls-handshake:"

_SEQUENCE, _OCTETS = 0x30, 0x04
_VALID_BEFORE: Final = timedelta(hours=1)
"""A peer's clock may be late by so much; go has the same."""
_VALID_FOR: Final = timedelta(days=365 * 100)
"""The key lives as long as the process; go has the same hundred years."""

_MIN_RSA_BITS: Final = 2048
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
"""Those with an output of at least 256 bits, which rustls takes in a signature of TLS 1.3."""

_UNDERSTOOD: Final = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
    x509.SubjectAlternativeName,
)
"""Extensions that may be critical. None of them changes what the certificate proves here."""

_FAULTS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for bytes that are no certificate, or no certificate that it understands."""


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
    signed = PREFIX + _spki(key.public_key())
    value = encode_signed_key(identity.public_key.serialize(), identity.sign(signed))
    serial = x509.random_serial_number() >> 96 | 1  # 63 bits, as go has them: it stands there three times
    # RFC 5280 section 4.1.2.4 wants a name of the issuer; go and rust put a number there too.
    name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(day)
        .not_valid_after(day + _VALID_FOR)
        # Not critical: TLS libraries that know nothing of it read the certificate all the same.
        .add_extension(x509.UnrecognizedExtension(EXTENSION, value), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credentials(
        certificate.public_bytes(Encoding.DER),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    )


def verify_certificate(certificate: bytes, now: datetime, expected: PeerId | None = None) -> PeerId:
    """The peer id that a certificate in DER proves at a moment with a time zone (TL2 to TL6).

    Raises AuthenticationFailed, for any bytes, and WrongPeer when the id is not the `expected` one.
    """
    if len(certificate) > MAX_CERTIFICATE:
        raise AuthenticationFailed(f"the certificate has {len(certificate)} bytes, the limit is {MAX_CERTIFICATE}")
    try:
        # `cryptography` warns of numbers and names that it will refuse one day: a stranger's, of which nobody is told.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = _verify(x509.load_der_x509_certificate(certificate), now)
    except _FAULTS as problem:
        raise AuthenticationFailed(f"the certificate cannot be used ({problem})") from None
    except InvalidSignature:
        raise AuthenticationFailed("the certificate's own signature is wrong") from None
    if expected is not None and peer != expected:
        raise WrongPeer(f"dialled {peer_text(expected)}, but {peer_text(peer)} answered")
    return peer


def _verify(certificate: x509.Certificate, now: datetime) -> PeerId:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        raise AuthenticationFailed(f"the certificate is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    _check_self_signed(certificate)
    public, signature = decode_signed_key(_extension(certificate))
    return verify_identity(public, signature, PREFIX + _spki(certificate.public_key()))


def _extension(certificate: x509.Certificate) -> bytes:
    """The value of libp2p's extension. Raises AuthenticationFailed without one, or beside a critical unknown one."""
    found: bytes | None = None
    for extension in certificate.extensions:
        value = extension.value
        if extension.oid == EXTENSION and isinstance(value, x509.UnrecognizedExtension):
            found = value.value
        elif extension.critical and not isinstance(value, _UNDERSTOOD):
            raise AuthenticationFailed(
                f"the certificate has a critical extension that is not understood ({extension.oid.dotted_string})"
            )
    if found is None:
        raise AuthenticationFailed("the certificate lacks the libp2p extension")
    return found


def _check_self_signed(certificate: x509.Certificate) -> None:
    """Raises InvalidSignature unless the certificate's key has signed it, ValueError for a key or hash too weak.

    Names are not compared: they mean nothing here, and go does not compare them either.
    """
    key, signature, signed = certificate.public_key(), certificate.signature, certificate.tbs_certificate_bytes
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
        return
    algorithm = certificate.signature_hash_algorithm
    if not isinstance(algorithm, _HASHES):
        raise ValueError(f"signed with {algorithm.name if algorithm else 'no hash'}")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(algorithm))
    elif isinstance(key, rsa.RSAPublicKey):
        check_rsa(key)
        if key.key_size < _MIN_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits")
        parameters = certificate.signature_algorithm_parameters
        if not isinstance(parameters, padding.PKCS1v15 | padding.PSS):
            raise ValueError("an RSA signature of another kind")
        key.verify(signature, signed, parameters, algorithm)
    else:
        raise ValueError("a key of another kind")


def _spki(key: object) -> bytes:
    """The SubjectPublicKeyInfo, which the identity signs behind the prefix."""
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise ValueError("a key of another kind")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# --- SignedKey, in DER ---------------------------------------------------------------------------------------


def encode_signed_key(public: bytes, signature: bytes) -> bytes:
    """`SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }` (TL4)."""
    return _element(_SEQUENCE, _element(_OCTETS, public) + _element(_OCTETS, signature))


def decode_signed_key(value: bytes) -> tuple[bytes, bytes]:
    """The public key message and the signature. Raises AuthenticationFailed unless `value` is that and no more."""
    body, rest = _split(value, _SEQUENCE)
    public, behind = _split(body, _OCTETS)
    signature, more = _split(behind, _OCTETS)
    if rest or more:
        raise AuthenticationFailed("the libp2p extension has bytes behind its end")
    return public, signature


def _element(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def _split(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The body of the element at the front, and what follows it. The length has its shortest form: DER, not BER."""
    if len(data) < 2 or data[0] != tag:
        raise AuthenticationFailed("the libp2p extension is no SignedKey")
    size, start = data[1], 2
    if size >= 0x80:
        start += size & 0x7F
        digits = data[2:start]
        size = int.from_bytes(digits, "big")
        if not 1 <= len(digits) <= 2 or digits[0] == 0 or size < 0x80:
            raise AuthenticationFailed("the libp2p extension has a length that is not DER")
    end = start + size
    if end > len(data):
        raise AuthenticationFailed("the libp2p extension ends too early")
    return data[start:end], data[end:]
