"""Peer ids: the multihash of a public key, and its two text forms (libp2p specs, peer-ids).

A `PeerId` that exists is well formed: one of the two multihashes that a key can have. Nothing here knows a key, a file
or a connection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from punchbridge.digits import BASE36, BASE58, from_digits, to_digits
from punchbridge.errors import AddressError

__all__ = ["PeerId", "parse_peer_id", "peer_id_forms", "peer_text"]

_MAX_INLINE: Final = 42
"""Bytes of a serialized public key that are the peer id themselves; a longer key is hashed."""

_IDENTITY, _SHA2_256 = 0x00, 0x12
_CID_PREFIX: Final = b"\x01\x72"
"""CID version 1, codec libp2p-key."""

_MAX_TEXT: Final = 200
"""Characters. The longest form is base16 of a CID, 93; numbers in base 58 cost the square of their length."""

_EXPECTED: Final = "expected 12D3KooW… or bafz…"


class PeerId:
    """The name of a peer: equal, hashed and kept as the bytes of its multihash."""

    __slots__ = ("_raw", "_text")

    def __init__(self, raw: bytes) -> None:
        """Takes a multihash as it stands on the wire. Raises AddressError when no public key can have it."""
        fault = _fault(raw)
        if fault is not None:
            raise AddressError(f"not a peer id: {raw[:64].hex() or 'no bytes'} ({fault})")
        self._raw = bytes(raw)
        self._text: str | None = None

    @classmethod
    def of_key(cls, serialized: bytes) -> PeerId:
        """The peer id of a serialized PublicKey message: itself up to 42 bytes, else its SHA2-256."""
        if len(serialized) <= _MAX_INLINE:
            return cls(bytes((_IDENTITY, len(serialized))) + serialized)
        return cls(bytes((_SHA2_256, 32)) + hashlib.sha256(serialized).digest())

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Reads base58btc (12D3KooW…, 16Uiu2HA…, Qm…) or a CIDv1 of codec libp2p-key in any usual multibase.

        Raises AddressError with the reason.
        """
        text = text.strip()
        try:
            if len(text) > _MAX_TEXT:
                raise ValueError(f"{len(text)} characters")
            raw = from_digits(text, BASE58) if text.startswith(("1", "Qm")) else _from_cid(text)
        except ValueError as problem:
            raise AddressError(f"not a peer id: {text[:_MAX_TEXT]!r} ({problem}); {_EXPECTED}") from None
        fault = _fault(raw)
        if fault is not None:
            raise AddressError(f"not a peer id: {text!r} ({fault}); {_EXPECTED}")
        return cls(raw)

    def to_bytes(self) -> bytes:
        """The multihash, as messages and binary addresses carry it."""
        return self._raw

    def to_base58(self) -> str:
        """The form that is printed (specs/peer-ids: SHOULD)."""
        if self._text is None:
            self._text = to_digits(self._raw, BASE58)
        return self._text

    def to_cid(self) -> str:
        """CIDv1 with codec libp2p-key in base32: bafz…."""
        return "b" + base64.b32encode(_CID_PREFIX + self._raw).decode().rstrip("=").lower()

    def __str__(self) -> str:
        return self.to_base58()

    def __repr__(self) -> str:
        return f"PeerId({self.to_base58()})"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, PeerId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)


def peer_text(peer: PeerId) -> str:
    """The peer id as base58btc, the form that is printed (specs/peer-ids: SHOULD)."""
    return peer.to_base58()


def peer_id_forms(peer: PeerId) -> tuple[str, str]:
    """Both text forms: base58btc, and CIDv1 in base32 with codec libp2p-key."""
    return peer.to_base58(), peer.to_cid()


def parse_peer_id(text: str) -> PeerId:
    """Reads either text form. Raises AddressError with the reason."""
    return PeerId.parse(text)


def _fault(raw: bytes) -> str | None:
    """Why `raw` is no multihash of a public key, or None."""
    if len(raw) < 3 or raw[0] not in (_IDENTITY, _SHA2_256) or raw[1] != len(raw) - 2:
        return "not an identity or SHA2-256 multihash"
    if raw[0] == _SHA2_256 and raw[1] != 32:
        return "a SHA2-256 digest has 32 bytes"
    if raw[0] == _IDENTITY and raw[1] > _MAX_INLINE:
        return f"a key of more than {_MAX_INLINE} bytes is hashed, not inlined"
    return None


def _from_cid(text: str) -> bytes:
    """The multihash in a CIDv1. Raises ValueError."""
    raw = _from_multibase(text)
    if raw[:2] != _CID_PREFIX:
        raise ValueError("the CID is not of codec libp2p-key (0x72)")
    return raw[2:]


def _from_multibase(text: str) -> bytes:
    """Decodes by the first character (github.com/multiformats/multibase). Raises ValueError."""
    prefix, digits = text[:1], text[1:]
    if prefix in ("b", "B"):
        return base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
    if prefix in ("f", "F"):
        return binascii.unhexlify(digits)
    if prefix == "z":
        return from_digits(digits, BASE58)
    if prefix in ("k", "K"):
        return from_digits(digits.lower(), BASE36)
    if prefix in ("m", "M", "u", "U"):
        padded = digits.rstrip("=") + "=" * (-len(digits.rstrip("=")) % 4)
        return base64.b64decode(padded, b"-_" if prefix in ("u", "U") else None, validate=True)
    raise ValueError("neither base58btc nor a multibase")
