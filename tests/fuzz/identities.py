"""Identities that are the same in every run, so that inputs which hold their signatures can be kept."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from punchbridge.identity import Identity
from punchbridge.keys import KeyKind, PrivateKey

_VECTORS = Path(__file__).resolve().parents[1] / "unit" / "vectors" / "peer-ids.txt"


@cache
def numbered(number: int) -> Identity:
    """One Ed25519 identity for each number from 0 to 255. Its key is no secret."""
    return Identity.from_private_key(PrivateKey(KeyKind.ED25519, bytes((number,)) * 32))


@cache
def of_each_kind() -> tuple[Identity, ...]:
    """One identity of every kind of key: the test vectors of the specification."""
    lines = (line.split() for line in _VECTORS.read_text().splitlines() if not line.startswith("#"))
    return tuple(Identity.from_private_key(PrivateKey.parse(bytes.fromhex(private))) for _, private, _ in lines)
