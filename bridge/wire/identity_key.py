"""Public identity keys as they come over the wire: bounds first, then decoding, then the signature.

RSA, Ed25519, secp256k1 and ECDSA (specs/peer-ids). Says who signed; what was signed is the caller's matter.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from punchbridge.errors import AuthenticationFailed
from punchbridge.identity import PeerId
from punchbridge.limits.wire import MAX_IDENTITY_KEY, MAX_RSA_BITS
from punchbridge.wire.messages import DecodeError, KeyType, PublicKeyMessage

_MAX_INLINE = 42


def peer_of_key(serialized: bytes) -> PeerId:
    """The peer id of a serialized PublicKey: identity multihash up to 42 bytes, else SHA2-256."""
    if len(serialized) <= _MAX_INLINE:
        return PeerId(bytes((0x00, len(serialized))) + serialized)
    return PeerId(b"\x12\x20" + hashlib.sha256(serialized).digest())


def verify_identity(serialized: bytes, signature: bytes, signed: bytes) -> PeerId:
    """Checks the signature and returns the signer's peer id.

    Raises AuthenticationFailed when the key is malformed, of an unknown type, too large (RSA above 8192 bits), or when
    the signature is wrong.
    """
    if len(serialized) > MAX_IDENTITY_KEY:
        raise AuthenticationFailed(f"the identity key has {len(serialized)} bytes, the limit is {MAX_IDENTITY_KEY}")
    try:
        key = PublicKeyMessage.FromString(serialized)
        _check(key.key_type, key.data, signature, signed)
    except InvalidSignature:
        raise AuthenticationFailed("the identity signature is wrong") from None
    except (DecodeError, ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise AuthenticationFailed(f"the identity key cannot be used ({problem})") from None
    # Hashed in the deterministic encoding, so that one key has one peer id however it was sent.
    return peer_of_key(bytes(PublicKeyMessage(key_type=key.key_type, data=key.data).SerializeToString()))


def _check(kind: int, data: bytes, signature: bytes, signed: bytes) -> None:
    if kind == KeyType.Ed25519:
        Ed25519PublicKey.from_public_bytes(data).verify(signature, signed)
    elif kind == KeyType.Secp256k1:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    elif kind == KeyType.ECDSA:
        loaded = load_der_public_key(data)
        if not isinstance(loaded, ec.EllipticCurvePublicKey):
            raise ValueError("not an ECDSA key")
        loaded.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    elif kind == KeyType.RSA:
        loaded = load_der_public_key(data)
        if not isinstance(loaded, rsa.RSAPublicKey):
            raise ValueError("not an RSA key")
        if loaded.key_size > MAX_RSA_BITS:
            raise ValueError(f"an RSA key of {loaded.key_size} bits, the limit is {MAX_RSA_BITS}")
        loaded.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        raise ValueError(f"unknown key type {kind}")
