"""Identities of every kind of key that a peer may have; the programs themselves only make Ed25519 keys."""

from __future__ import annotations

from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from punchbridge.identity import Identity
from punchbridge.keys import KeyKind, PrivateKey

KINDS: Final = tuple(KeyKind)


@cache
def identity_of(kind: KeyKind, number: int = 0) -> Identity:
    """One identity of that kind; another one for another `number`. RSA keys take long to make, so they are kept."""
    if kind is KeyKind.ED25519:
        return Identity.generate()
    if kind is KeyKind.SECP256K1:
        secret = ec.generate_private_key(ec.SECP256K1()).private_numbers().private_value.to_bytes(32, "big")
        return Identity.from_private_key(PrivateKey(kind, secret))
    key = ec.generate_private_key(ec.SECP256R1()) if kind is KeyKind.ECDSA else rsa.generate_private_key(65537, 2048)
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return Identity.from_private_key(PrivateKey(kind, der))
