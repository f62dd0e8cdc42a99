"""A NAT for one client over UDP on loopback, that loses its state when a test says so."""

from __future__ import annotations

import socket
from typing import Any

import trio


class Rebinding:
    """What comes in leaves from another socket, which `rebind` replaces.

    `host`: the address that it leaves from after `rebind`. While `deaf` nothing that comes back there reaches the
    client, as when somebody writes another one's address on its datagrams; what comes back to the socket before does.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._inside = self._socket()
        self._outside = self._socket()
        self._before: socket.socket | None = None
        self._client: Any = None
        self.deaf = False
        self.port = self._inside.getsockname()[1]

    @staticmethod
    def _socket(host: str = "127.0.0.1") -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind((host, 0))
        return made

    @property
    def outside(self) -> tuple[str, int]:
        """Where the client is seen now."""
        host, port = self._outside.getsockname()
        return str(host), int(port)

    def rebind(self, host: str = "127.0.0.1") -> None:
        old, self._outside = self._outside, self._socket(host)
        if self.deaf:
            self._before = old
            return
        trio.lowlevel.notify_closing(old)
        old.close()

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._out)
                nursery.start_soon(self._back)
        finally:
            for one in (self._inside, self._outside, self._before):
                if one is not None:
                    one.close()

    async def _out(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._inside)
            data, self._client = self._inside.recvfrom(65535)
            self._outside.sendto(data, self._target)

    async def _back(self) -> None:
        while True:
            outside = self._before or self._outside
            try:
                await trio.lowlevel.wait_readable(outside)
                data = outside.recv(65535)
            except (trio.ClosedResourceError, OSError):
                continue
            self._inside.sendto(data, self._client)
