"""Bytes as one large number in base 58 or 36, as multibase writes them (github.com/multiformats/multibase).

Reading and writing cost the square of the length; the caller bounds it. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BASE36", "BASE58", "from_digits", "to_digits"]

BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""The digits of Bitcoin, without those that look alike."""

BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def from_digits(text: str, alphabet: str) -> bytes:
    """The bytes that the text writes; each leading zero digit is a zero byte. Raises ValueError for a foreign digit."""
    number, base = 0, len(alphabet)
    for char in text:
        digit = alphabet.find(char)
        if digit < 0:
            raise ValueError(f"{char!r} is no digit of base {base}")
        number = number * base + digit
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def to_digits(raw: bytes, alphabet: str) -> str:
    """The text of the bytes, which `from_digits` reads."""
    number, base, digits = int.from_bytes(raw, "big"), len(alphabet), []
    while number:
        number, digit = divmod(number, base)
        digits.append(alphabet[digit])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return alphabet[0] * zeros + "".join(reversed(digits))
