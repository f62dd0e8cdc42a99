"""The line protocol of the bench's programs: a ready line, then orders and answers as JSON lines on stdin and stdout.

The same one as of the interop peers, so that either can be driven by either. Knows no protocol of a network.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

Order = dict[str, Any]


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def ready(peer: str, addrs: list[str], version: str, **more: Any) -> None:
    say({"event": "ready", "peer": peer, "addrs": addrs, "version": version, **more})


async def obey_stdin(obey: Callable[[Order], Awaitable[dict[str, Any]]]) -> None:
    """Carries out the orders of stdin, one after another, until stdin ends."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as orders:
        kept = b""
        while data := await orders.receive_some():
            *lines, kept = (kept + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                try:
                    say({"id": order["id"], "ok": await obey(order)})
                except Exception as problem:  # noqa: BLE001 - the driver judges
                    say({"id": order["id"], "error": repr(problem)})


def pinned() -> str:
    """The Python and trio that run this."""
    return f"Python {sys.version.split()[0]}, trio {trio.__version__}"
