"""Who stands behind a TLS certificate: libp2p's extension with the identity key and its signature (specs/tls).

The certificate's own key is fresh and says nothing; the extension binds it to an identity of any kind. Pure: the
wall clock comes from the caller. TLS itself, and that the peer holds the certificate's key, are the handshake's matter.
Our own certificate is made in `punchbridge.wire.tls_credentials`.
"""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from punchbridge.errors import AuthenticationFailed, WrongPeer
from punchbridge.identity import PeerId, peer_text
from punchbridge.keys import check_rsa
from punchbridge.wire.identity_key import verify_identity
from punchbridge.wire.tls_credentials import OCTETS, PREFIX, SEQUENCE

__all__ = ["ALPN", "MAX_CERTIFICATE", "verify_certificate"]

ALPN: Final = b"libp2p"
"""The application protocol that both sides offer (TL7)."""

MAX_CERTIFICATE: Final = 8192
"""Bytes. The largest one has RSA keys of 8192 bits on both levels and takes about 6000."""

EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")

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


def decode_signed_key(value: bytes) -> tuple[bytes, bytes]:
    """The public key message and the signature. Raises AuthenticationFailed unless `value` is that and no more."""
    body, rest = _split(value, SEQUENCE)
    public, behind = _split(body, OCTETS)
    signature, more = _split(behind, OCTETS)
    if rest or more:
        raise AuthenticationFailed("the libp2p extension has bytes behind its end")
    return public, signature


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
