"""What the session layer costs on a direct path: gRPC with and without it, in turns, against the same server.

    session_cost.py [ROUNDS]

Prints one JSON line: medians of both and their ratios (throughput: at least 0.8; small calls: at most 1.25).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

import punchbridge

SERVER = Path(__file__).resolve().parent / "programs" / "rpc_server.py"
MIB = bytes(1 << 20)
SIZE = 48
"""MiB of one transfer."""

CALLS = 300


def up(channel: grpc.Channel) -> float:
    """MiB per second to the server."""
    began = time.perf_counter()
    channel.stream_unary("/b/Up", None, None)(MIB for _ in range(SIZE))
    return SIZE / (time.perf_counter() - began)


def down(channel: grpc.Channel) -> float:
    """MiB per second from the server."""
    began = time.perf_counter()
    for _ in channel.unary_stream("/b/Down", None, None)(str(SIZE).encode()):
        pass
    return SIZE / (time.perf_counter() - began)


def call(channel: grpc.Channel) -> float:
    """Milliseconds of a small call, the median of many."""
    echo, times = channel.unary_unary("/b/Echo", None, None), []
    for _ in range(CALLS):
        began = time.perf_counter()
        echo(b"x" * 100)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def chat(channel: grpc.Channel) -> float:
    """Small messages per second through one bidirectional stream."""
    began, count = time.perf_counter(), 10 * CALLS
    for _ in channel.stream_stream("/b/Chat", None, None)(b"x" * 100 for _ in range(count)):
        pass
    return count / (time.perf_counter() - began)


FIGURES: dict[str, Callable[[grpc.Channel], float]] = {"up": up, "down": down, "call": call, "chat": chat}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Of each figure: `with`, `without`, and `ratio` of the two."""
    found: dict[str, dict[bool, list[float]]] = {name: {True: [], False: []} for name in FIGURES}
    with subprocess.Popen([sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        told: dict[str, Any] = json.loads(server.stdout.readline())
        listen = ["/ip4/127.0.0.1/tcp/0"]
        with (
            punchbridge.open(listen=listen, punch=False, allow_private=True, allow=punchbridge.ANYONE) as over,
            punchbridge.open(
                listen=listen, punch=False, allow_private=True, allow=punchbridge.ANYONE, sessions=False
            ) as plain,
            over.channel(told["addrs"][0]) as first,
            plain.channel(told["addrs"][0]) as second,
        ):
            for channel in (first, second):
                down(channel)
            for number in range(rounds):
                pairs = [(True, first), (False, second)]
                for name, figure in FIGURES.items():
                    for sessions, channel in pairs if number % 2 else reversed(pairs):
                        found[name][sessions].append(figure(channel))
        assert server.stdin is not None
        server.stdin.close()
    return {
        name: {
            "with": round(statistics.median(both[True]), 2),
            "without": round(statistics.median(both[False]), 2),
            # Of neighbours in time, so that a machine that slows down slows both.
            "ratio": round(statistics.median(a / b for a, b in zip(both[True], both[False], strict=True)), 3),
        }
        for name, both in found.items()
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 9)))
