"""gRPC through the bridge against gRPC over a plain unix socket, server and client in processes of their own.

Prints ratios; asserts no timing. Run: pytest -m bench tests/bench/test_rpc_bench.py -s
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import bridge

SERVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc, bridge
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method.endswith("Up"):
            return grpc.stream_unary_rpc_method_handler(lambda parts, _: str(sum(map(len, parts))).encode())
        if details.method.endswith("Down"):
            return grpc.unary_stream_rpc_method_handler(lambda n, _: (bytes(1 << 20) for _ in range(int(n))))
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
server = grpc.server(ThreadPoolExecutor(8), handlers=(Handler(),), options=bridge.server_options())
with bridge.open(listen=["/ip4/127.0.0.1/tcp/0"], allow_private=True) as b:
    b.serve(server)
    server.add_insecure_port("unix:" + sys.argv[1])
    server.start()
    print(b.addrs[0], flush=True)
    sys.stdin.read()
    server.stop(None).wait()
"""
CALLS = 2000
MIB = 128


def measure(channel: grpc.Channel) -> dict[str, float]:
    """Unary p50 in µs, unary calls a second with 8 in flight, MB/s up and down."""
    echo = channel.unary_unary("/b/Echo")
    for _ in range(100):
        echo(bytes(100))
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        echo(bytes(100))
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(CALLS // 8):
        for call in [echo.future(bytes(100)) for _ in range(8)]:
            call.result()
    rate = CALLS / (time.perf_counter() - began)
    up = timed(lambda: channel.stream_unary("/b/Up")(bytes(1 << 20) for _ in range(MIB)))
    down = timed(lambda: [None for _ in channel.unary_stream("/b/Down")(str(MIB).encode())])
    megabytes = MIB * (1 << 20) / 1e6
    return {"p50 µs": statistics.median(times) * 1e6, "calls/s": rate, "up": megabytes / up, "down": megabytes / down}


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_bridge_against_a_unix_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "direct"
    command = [sys.executable, "-c", SERVER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        addr = server.stdout.readline().strip()
        with bridge.open(listen=["/ip4/127.0.0.1/tcp/0"], allow_private=True) as b:
            with grpc.insecure_channel(f"unix:{path}", options=bridge.channel_options("x")) as channel:
                direct = measure(channel)
            with b.channel(addr) as channel:
                bridged = measure(channel)
        server.stdin.close()
    with capsys.disabled():
        print()
        for name, value in direct.items():
            print(f"{name:8} direct {value:10.0f}  bridge {bridged[name]:10.0f}  ratio {bridged[name] / value:5.2f}")
