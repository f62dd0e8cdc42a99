"""What a parser is to the fuzzer: a function that takes any bytes, and valid inputs to begin with. It knows none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from punchbridge.errors import BridgeError


@dataclass(frozen=True)
class Parser:
    """One parser. `feed` takes one input and returns whether it was accepted.

    Raising one of `refuses` is a refusal too; whatever else it raises is a defect, failed assertions about what the
    parser holds included. `seeds` are inputs that it accepts, or that lead deep into it.
    """

    name: str
    feed: Callable[[bytes], bool]
    seeds: Sequence[bytes]
    refuses: tuple[type[Exception], ...] = (BridgeError,)

    def try_one(self, data: bytes) -> bool:
        """Whether the input was accepted. Raises what no parser may raise."""
        try:
            return self.feed(data)
        except self.refuses:
            return False


def pieces(data: bytes) -> list[bytes]:
    """The same bytes cut into pieces, as a network might; how, says the input itself."""
    step = 1 + sum(data[:8]) % 61
    return [data[start : start + step] for start in range(0, len(data), step)]


class Script:
    """Reads small numbers and pieces from an input, which then says what is done as well as what is fed."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """The next byte, 0 behind the end."""
        return self.take(1)[0] if self else 0

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def number(self) -> int:
        """A number of eight bytes."""
        return int.from_bytes(self.take(8), "big")

    def rest(self) -> bytes:
        return self.take(len(self._data))


def told(text: str) -> bytes:
    """A text as an input."""
    return text.encode()


def read(data: bytes) -> str:
    """The text of an input; bytes that are no UTF-8 become surrogates, as they do in argv."""
    return data.decode(errors="surrogateescape")
