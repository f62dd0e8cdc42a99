"""The yardsticks: raw TCP, and TCP with bare ChaCha20-Poly1305 framing; no peers, no muxer, no negotiation.

plain.py raw|chacha [--listen ADDR]. The first byte of a connection says whether it is for perf or for echo.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

import perf  # noqa: E402
from control import Order, obey_stdin, pinned, ready  # noqa: E402
from echo import echo_back, echo_times  # noqa: E402

FRAME = 65519
NONCE = struct.Struct("<4xQ").pack
LENGTH = struct.Struct(">H").pack
READ = 262144
PERF, ECHO = b"p", b"e"


class Framed(trio.abc.HalfCloseableStream):
    """u16 length, ciphertext, tag; a frame without plaintext is the end. The key is fixed: this is a yardstick."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        cipher = ChaCha20Poly1305(bytes(32))
        self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
        self._sent = self._received = 0
        self._kept = b""
        self._plain: deque[bytes] = deque()
        self._ended = False

    async def send_all(self, data: Any) -> None:
        view = memoryview(data)
        for at in range(0, len(view), FRAME):
            await self._frame(view[at : at + FRAME])

    async def _frame(self, payload: Any) -> None:
        sealed = self._encrypt(NONCE(self._sent), payload, None)
        self._sent += 1
        await self._stream.send_all(LENGTH(len(sealed)) + sealed)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._plain and not self._ended:
            data = await self._stream.receive_some(READ)
            if not data:
                raise EOFError("no end frame")
            self._open(self._kept + data if self._kept else data)
        return self._plain.popleft() if self._plain else b""

    def _open(self, data: bytes) -> None:
        at, end, view = 0, len(data), memoryview(data)
        while end - at >= 2:
            stop = at + 2 + (data[at] << 8 | data[at + 1])
            if stop > end:
                break
            plain = self._decrypt(NONCE(self._received), view[at + 2 : stop], None)
            self._received += 1
            if plain:
                self._plain.append(plain)
            else:
                self._ended = True
            at = stop
        self._kept = data[at:]

    async def send_eof(self) -> None:
        await self._frame(b"")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Raw(trio.abc.HalfCloseableStream):
    """trio's own stream over TCP, with reads as large as those of the others."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.send_all, self.send_eof = stream.send_all, stream.send_eof  # type: ignore[method-assign]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes or READ))

    async def send_all(self, data: Any) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def serve(wrap: Callable[[trio.SocketStream], Any], tcp: trio.SocketStream) -> None:
    async with tcp:
        kind = await tcp.receive_some(1)
        stream = wrap(tcp)
        try:
            await (perf.answer(stream) if kind == PERF else echo_back(stream))
        except (EOFError, trio.BrokenResourceError):
            pass  # the client is done


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("raw", "chacha"))
    parser.add_argument("--listen")
    options = parser.parse_args()
    wrap: Callable[[trio.SocketStream], Any] = Raw if options.kind == "raw" else Framed
    target: list[tuple[str, int]] = []

    async def obey(order: Order) -> dict[str, Any]:
        if order["do"] == "dial":
            _, _, host, _, port = order["addr"].split("/")
            target[:] = [(host, int(port))]
            return {}
        async with await trio.open_tcp_stream(*target[0]) as tcp:
            if order["do"] == "perf":
                await tcp.send_all(PERF)
                return {"seconds": (await perf.ask(wrap(tcp), up=order["up"], down=order["down"])).seconds}
            await tcp.send_all(ECHO)
            return {"ms": await echo_times(wrap(tcp), order["count"])}

    async with trio.open_nursery() as nursery:
        addrs = []
        if options.listen:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            addrs = [f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"]
            nursery.start_soon(trio.serve_listeners, lambda tcp: serve(wrap, tcp), [listener])
        ready("", addrs, pinned())
        await obey_stdin(obey)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
