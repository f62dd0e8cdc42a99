"""The secret of an invitation: 16 bytes that no text form shows, and the digest that the server keeps of it.

Where the random bytes come from is the caller's matter. A ticket holds them; how its text is known stands here, so that
whoever quotes what a person wrote can leave it out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

__all__ = ["DIGEST_SIZE", "PREFIX", "SECRET_SIZE", "Secret", "hide_tickets", "is_ticket"]

PREFIX: Final = "pbticket_"
"""What a ticket is known by, as people and as scanners for leaked secrets. No peer id and no address begins so."""

_ANY: Final = re.compile(rf"{PREFIX}\w*(?:\s+\w{{16,}})*", re.IGNORECASE | re.ASCII)
"""A ticket, whole or not, and its further lines where a mail program has broken it."""

SECRET_SIZE: Final = 16
"""Bytes. 2**128 values: nobody finds one by asking, at whatever rate is answered."""

DIGEST_SIZE: Final = 32


class Secret:
    """Sixteen secret bytes. Equal in constant time; `repr` and `str` show nothing of them."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        """`raw` are random bytes, or what a ticket or a request holds. Raises ValueError for another size."""
        if len(raw) != SECRET_SIZE:
            raise ValueError(f"the secret of an invitation has {SECRET_SIZE} bytes, not {len(raw)}")
        self._raw = bytes(raw)

    def to_bytes(self) -> bytes:
        """The bytes, for a ticket and for the encrypted stream on which they are proven, and for nothing else."""
        return self._raw

    @property
    def digest(self) -> bytes:
        """The SHA-256. The secret is random, so that its digest is of no use to whoever reads the server's file."""
        return hashlib.sha256(self._raw).digest()

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._raw, other._raw) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return "Secret(hidden)"


def is_ticket(text: str) -> bool:
    """Whether the text means to be a ticket, whole or not. Cheap, for any text."""
    return text.lstrip()[: len(PREFIX)].lower() == PREFIX


def hide_tickets(text: str) -> str:
    """The text without the tickets in it: for errors that quote what a person wrote in the wrong place."""
    return _ANY.sub(f"{PREFIX}…", text)
