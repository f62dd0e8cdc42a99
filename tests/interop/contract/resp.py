"""The Redis protocol (RESP 2) as far as the published suites use it: words out, replies in, over one trio stream.

Knows no key and no suite. Source: redis.io/docs/latest/develop/reference/protocol-spec.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import trio

MAX_LINE: Final = 64 * 1024
"""No address, peer id or key is longer; a line without an end must not fill the memory."""
MAX_BULK: Final = 1024 * 1024
MAX_ITEMS: Final = 1024

Value = str | int | None | list["Value"]


class RespError(Exception):
    """The other side answered with an error, broke the protocol, or went away in the middle."""


def command(*words: str) -> bytes:
    """An array of bulk strings, which is what every request is."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def reply(value: Value) -> bytes:
    """A bulk string, an integer, null, or an array of them."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(reply, value))
    data = value.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


class Reader:
    """Values from a byte stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def value(self) -> Value:
        """The next value. Raises RespError, EOFError between two values, and what the stream raises."""
        line = (await self._line()).decode()
        kind, rest = line[:1], line[1:]
        if kind == "+":
            return rest
        if kind == "-":
            raise RespError(rest)
        if kind not in (":", "$", "*"):
            raise RespError(f"a value does not begin with {kind!r}")
        number = int(rest)
        if kind == ":":
            return number
        if number == -1:
            return None
        if kind == "$":
            return (await self._exactly(number + 2))[:-2].decode()
        if not 0 <= number <= MAX_ITEMS:
            raise RespError(f"an array of {number}")
        return [await self.value() for _ in range(number)]

    async def _more(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise EOFError("the connection ended")
        self._buffer += data

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise RespError("a line without an end")
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _exactly(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BULK:
            raise RespError(f"a string of {size} bytes")
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


class Client:
    """One connection to a Redis. Requests run one after another."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reader = Reader(stream)

    @classmethod
    @asynccontextmanager
    async def open(cls, host: str, port: int) -> AsyncIterator[Self]:
        """Raises OSError when nobody answers."""
        async with await trio.open_tcp_stream(host, port) as stream:
            yield cls(stream)

    async def ask(self, *words: str) -> Value:
        """Raises RespError for an error reply or a connection that ended, OSError and trio's stream errors."""
        await self._stream.send_all(command(*words))
        try:
            return await self._reader.value()
        except EOFError as problem:
            raise RespError(str(problem)) from None

    async def text(self, *words: str) -> str | None:
        """The answer of a request whose answer is a string or nothing."""
        got = await self.ask(*words)
        if got is None or isinstance(got, str):
            return got
        raise RespError(f"{words[0]} was answered with {got!r}")


def texts(value: Value) -> Sequence[str]:
    """An array of strings. Raises RespError for anything else."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RespError(f"not an array of strings: {value!r}")
    return [str(one) for one in value]
