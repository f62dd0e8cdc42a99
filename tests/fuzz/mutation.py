"""Changes inputs as a network and an attacker would: bits, lengths, numbers, pieces of others. No coverage is asked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

_NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_WORDS: Final = (
    b"/p2p/", b"/p2p-circuit", b"/ip4/", b"/ip6/", b"/tcp/", b"/udp/", b"/quic-v1", b"/dns/", b"/ip6zone/", b"/ws",
    b"\n", b"\r\n", b" ", b"\t", b"#", b":", b"[", b"]", b"{", b"}", b'"', b",", b"\\u0000", b"null", b"-1", b"1e999",
    b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", "é".encode(), "\u202e".encode(), "\U0001f600".encode(), b"\x1b[2J",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x08\x00", b"\x0a\xff\xff\xff\xff\x0f",
)  # fmt: skip
_LONGEST: Final = 70_000
"""Bytes. Longer than any message that a parser here is given whole."""


class Mutator:
    """Makes inputs from inputs, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def change(self, corpus: Sequence[bytes]) -> bytes:
        """One of the corpus, changed a few times; now and then random bytes alone."""
        chance = self._random
        if chance.random() < 0.03:
            return chance.randbytes(chance.choice((0, 1, 4, 16, 64, 300)))
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            self._once(data, corpus)
        return bytes(data[:_LONGEST])

    def _once(self, data: bytearray, corpus: Sequence[bytes]) -> None:
        chance = self._random
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(20)
        if what < 5 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif what < 9 and data:
            data[at % len(data)] = chance.randrange(256)
        elif what < 11:
            del data[at : at + chance.choice((1, 1, 2, 8, 100))]
        elif what < 12:
            data[at:at] = chance.randbytes(chance.choice((1, 1, 2, 8, 40)))
        elif what < 14:
            data[at:at] = chance.choice(_WORDS)
        elif what < 16:
            self._number(data, at)
        elif what == 16:
            piece = bytes(data[at : at + chance.choice((1, 4, 20, 200))])
            data[at:at] = piece * chance.choice((1, 1, 2, 2, 30, 300))
        elif what == 17:
            del data[at:]
        else:
            other = chance.choice(corpus)
            start = chance.randrange(len(other) + 1)
            data[at : at + chance.choice((0, 4, 1000))] = other[start : start + chance.choice((1, 8, 64, 1000))]

    def _number(self, data: bytearray, at: int) -> None:
        chance = self._random
        number = chance.choice(_NUMBERS) + chance.choice((-1, 0, 0, 1))
        size = chance.choice((1, 2, 4, 8))
        raw = (number % (1 << 8 * size)).to_bytes(size, chance.choice(("big", "little")))
        data[at : at + chance.choice((0, size))] = raw
