"""What both Python peers share: orders and answers as JSON lines on stdin and stdout, and the options.

Knows no libp2p. An order that fails is answered with its error; the program ends with its stdin.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

Order = Mapping[str, Any]
Obey = Callable[[Order], Awaitable[dict[str, Any]]]

ECHO, COUNT = "/interop/echo/1.0.0", "/interop/count/1.0.0"
RESET, SLOW, PERF = "/interop/reset/1.0.0", "/interop/slow/1.0.0", "/perf/1.0.0"
PROTOCOLS = {"echo": ECHO, "many": ECHO, "count": COUNT, "reset": RESET, "slow": SLOW, "perf": PERF}
PAUSE = 2.0
"""Seconds that the slow reader waits."""
BLOCK = 65536
ORDER_TIMEOUT = 60.0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("-listen", action="append", default=[])
    for name in ("relay", "punch", "autonat"):
        parser.add_argument(f"-{name}", action="store_true")
    numbers = {"limit-bytes": 0, "limit-seconds": 0, "reservations": 128, "circuits": 0, "ttl": 3600}
    for name, default in numbers.items():
        parser.add_argument(f"-{name}", type=int, default=default)
    parser.add_argument("-identity", help="its private key, the libp2p message in hexadecimal; fresh without")
    parser.add_argument("-observers", type=int, default=4)
    return parser.parse_args()


def say(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def pattern(size: int) -> bytes:
    """Bytes for an echo: random once, so that a lost or repeated block shows."""
    return os.urandom(size)


async def serve_orders(obey: Obey) -> None:
    """Until stdin ends; orders run side by side."""
    async with trio.open_nursery() as nursery, trio.lowlevel.FdStream(os.dup(0)) as stdin:
        buffer = bytearray()
        while data := await stdin.receive_some():
            buffer += data
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                nursery.start_soon(_answer, obey, json.loads(line))
        nursery.cancel_scope.cancel()


async def _answer(obey: Obey, order: Order) -> None:
    try:
        with trio.fail_after(ORDER_TIMEOUT):
            say({"id": order["id"], "ok": await obey(order)})
    except Exception as problem:  # noqa: BLE001 - whatever happened is the answer
        say({"id": order["id"], "error": f"{type(problem).__name__}: {problem}"})
