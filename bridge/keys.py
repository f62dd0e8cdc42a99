"""Identity keys: Ed25519, secp256k1, ECDSA and RSA, in the messages of libp2p's peer-ids specification.

The arithmetic is the `cryptography` package's; here stands which key a message holds, within which bounds it is
accepted, and how each kind signs. Whose key it is and what was signed are the caller's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from google.protobuf.message import DecodeError

from punchbridge._pb.punchbridge.wire import keys_pb2 as pb
from punchbridge.peer_id import PeerId

__all__ = ["MAX_IDENTITY_KEY", "InvalidSignature", "KeyKind", "KeyRefused", "PrivateKey", "PublicKey", "check_rsa"]

_SECP256K1_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

MAX_RSA_BITS: Final = 8192
"""Larger keys cost the verifier too much (CVE-2023-39533)."""

_MAX_NUMBER: Final = MAX_RSA_BITS // 8 + 1
"""Bytes of the largest number in a private key that is looked at; DER writes a sign in front. To check one of 50000
bits takes a second."""

MAX_RSA_EXPONENT: Final = (1 << 31) - 1
"""The largest public exponent, as go has it. With one of 3072 bits a verification takes 9.6 ms, with 65537 0.11."""

MAX_IDENTITY_KEY: Final = 2048
"""A serialized public key; an RSA key of 8192 bits takes about 1100 bytes."""

_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_CONSTRUCTED: Final = 0x20
_DEPTH: Final = 4
"""In PKCS #8 the numbers of a key stand three levels deep."""

# What `cryptography` raises for bytes that are no key, or for curves that its OpenSSL was built without.
_FAULTS: Final = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm)


class KeyKind(IntEnum):
    """The key types of the specification, by their number on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class KeyRefused(ValueError):
    """The bytes hold no key of a kind and size that are accepted; the text says why."""


class PublicKey:
    """A public key that was understood. `data` is the key as the message carries it."""

    __slots__ = ("_verify", "data", "kind")

    def __init__(self, kind: int, data: bytes) -> None:
        """Raises KeyRefused when `data` is no key of that kind, or an RSA key of more than 8192 bits."""
        self.kind = _kind(kind)
        try:
            self._verify = _verifier(self.kind, data)
        except _FAULTS as problem:
            raise KeyRefused(str(problem) or type(problem).__name__) from None
        self.data = bytes(data)

    @classmethod
    def parse(cls, serialized: bytes) -> PublicKey:
        """Reads a PublicKey message, the bounds first. Raises KeyRefused, for any bytes."""
        if len(serialized) > MAX_IDENTITY_KEY:
            raise KeyRefused(f"it has {len(serialized)} bytes, the limit is {MAX_IDENTITY_KEY}")
        try:
            message = pb.PublicKey.FromString(serialized)
        except DecodeError:
            raise KeyRefused("it is no PublicKey message") from None
        return cls(message.key_type, message.data)

    def serialize(self) -> bytes:
        """The deterministic encoding that peer ids are made from, however the key was sent."""
        message = pb.PublicKey(key_type=cast(pb.KeyType, int(self.kind)), data=self.data)
        return bytes(message.SerializeToString(deterministic=True))

    @property
    def peer_id(self) -> PeerId:
        return PeerId.of_key(self.serialize())

    def verify(self, data: bytes, signature: bytes) -> None:
        """Raises InvalidSignature unless the owner of the key signed `data`."""
        try:
            self._verify(signature, data)
        except _FAULTS as problem:
            raise InvalidSignature(str(problem)) from None


class PrivateKey:
    """A private key. `data` is the key as the message carries it: a secret, so no text form shows it."""

    __slots__ = ("_sign", "data", "kind", "public")

    def __init__(self, kind: int, data: bytes) -> None:
        """Raises KeyRefused when `data` is no key of that kind, or an RSA key of more than 8192 bits."""
        self.kind = _kind(kind)
        try:
            self._sign, self.data, public = _READERS[self.kind](bytes(data))
        except _FAULTS as problem:
            raise KeyRefused(str(problem) or type(problem).__name__) from None
        self.public = PublicKey(kind, public)

    @classmethod
    def generate(cls) -> PrivateKey:
        """A fresh Ed25519 key, the kind that every libp2p implementation has."""
        return cls(KeyKind.ED25519, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, serialized: bytes) -> PrivateKey:
        """Reads a PrivateKey message. Raises KeyRefused, for any bytes."""
        try:
            message = pb.PrivateKey.FromString(serialized)
        except DecodeError:
            raise KeyRefused("it is no PrivateKey message") from None
        if not message.HasField("key_type"):
            raise KeyRefused("the message names no key type")
        return cls(message.key_type, message.data)

    def serialize(self) -> bytes:
        """The PrivateKey message, as key files hold it."""
        message = pb.PrivateKey(key_type=cast(pb.KeyType, int(self.kind)), data=self.data)
        return bytes(message.SerializeToString(deterministic=True))

    def sign(self, data: bytes) -> bytes:
        return self._sign(data)

    def __repr__(self) -> str:
        return f"PrivateKey({self.kind.name}, {self.public.peer_id})"


_Verify = Callable[[bytes, bytes], None]
_Sign = Callable[[bytes], bytes]
_Read = tuple[_Sign, bytes, bytes]
"""How a private key signs, its canonical data, and the data of its public key."""


def _kind(number: int) -> KeyKind:
    try:
        return KeyKind(number)
    except ValueError:
        raise KeyRefused(f"unknown key type {number}") from None


def _verifier(kind: KeyKind, data: bytes) -> _Verify:
    """A function of signature and data that raises InvalidSignature. Raises one of _FAULTS for an unusable key."""
    if kind is KeyKind.ED25519:
        return Ed25519PublicKey.from_public_bytes(data).verify
    if kind is KeyKind.SECP256K1:
        return _ecdsa_verifier(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data))
    key = load_der_public_key(data)
    if kind is KeyKind.ECDSA:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not an ECDSA key")
        return _ecdsa_verifier(key)
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("not an RSA key")
    check_rsa(key)
    return lambda signature, signed: key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


def _ecdsa_verifier(key: ec.EllipticCurvePublicKey) -> _Verify:
    return lambda signature, signed: key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))


def check_rsa(key: rsa.RSAPublicKey) -> None:
    """Raises ValueError for a key that costs whoever verifies with it too much."""
    if key.key_size > MAX_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits, the limit is {MAX_RSA_BITS}")
    if key.public_numbers().e > MAX_RSA_EXPONENT:
        raise ValueError("an RSA key with a public exponent above 31 bits")


def _read_ed25519(data: bytes) -> _Read:
    """The specification's 64 bytes (seed, public), the older 96 (public half twice), or py-libp2p's seed alone."""
    doubled = len(data) == 96 and data[32:64] == data[64:96]
    if not doubled and len(data) not in (32, 64):
        raise ValueError(f"an Ed25519 key of {len(data)} bytes")
    key = Ed25519PrivateKey.from_private_bytes(data[:32])
    public = key.public_key().public_bytes_raw()
    return key.sign, data[:32] + public, public


def _read_secp256k1(data: bytes) -> _Read:
    if len(data) != 32:
        raise ValueError(f"a secp256k1 key of {len(data)} bytes")
    secret = int.from_bytes(data, "big")
    if not 0 < secret < _SECP256K1_ORDER:
        raise ValueError("a secp256k1 key outside of its group")
    key = ec.derive_private_key(secret, ec.SECP256K1())

    def sign(message: bytes) -> bytes:
        # libsecp256k1, behind most implementations, refuses the larger of the two values of s that verify elsewhere.
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        return encode_dss_signature(r, min(s, _SECP256K1_ORDER - s))

    return sign, data, key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _load(data: bytes) -> PrivateKeyTypes:
    """The private key in DER. Raises one of _FAULTS, and ValueError before anything is computed with large numbers."""
    largest = _largest(data, _DEPTH)
    if largest > _MAX_NUMBER:
        raise ValueError(f"a number of {8 * largest} bits, the limit is {MAX_RSA_BITS}")
    return load_der_private_key(data, None)


def _largest(der: bytes, depth: int) -> int:
    """Bytes of the largest INTEGER in DER. What stands behind something malformed is not found, and will not be loaded
    either."""
    at = largest = 0
    while at + 2 <= len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        value, at = der[at : at + size], at + size
        if tag == _INTEGER:
            largest = max(largest, len(value))
        elif depth and (tag & _CONSTRUCTED or tag == _OCTET_STRING):
            largest = max(largest, _largest(value, depth - 1))
    return largest


def _read_ecdsa(data: bytes) -> _Read:
    key = _load(data)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return (lambda message: key.sign(message, ec.ECDSA(hashes.SHA256()))), private, public


def _read_rsa(data: bytes) -> _Read:
    key = _load(data)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("not an RSA key")
    check_rsa(key.public_key())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return (lambda message: key.sign(message, padding.PKCS1v15(), hashes.SHA256())), private, public


_READERS: Final[dict[KeyKind, Callable[[bytes], _Read]]] = {
    KeyKind.ED25519: _read_ed25519,
    KeyKind.SECP256K1: _read_secp256k1,
    KeyKind.ECDSA: _read_ecdsa,
    KeyKind.RSA: _read_rsa,
}
