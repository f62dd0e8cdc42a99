"""A gRPC client: orders open channels (unix, tls, bridge, stock) and use them. It judges nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

from control import ready, say  # noqa: E402

import punchbridge  # noqa: E402

SMALL = bytes(100)
MIB = bytes(1 << 20)


class Client:
    """Two channels to the server, so that bulk traffic and small calls need not share an HTTP/2 connection."""

    def __init__(self, b: Any) -> None:
        self.bridge = b
        self.channels: list[grpc.Channel] = []
        self.stock = ""

    def channel(self, order: dict[str, Any]) -> dict[str, Any]:
        own = [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(2):
            if order["kind"] == "bridge":
                channel = self.bridge.channel(order["target"], options=own)
            elif order["kind"] == "tls":
                trusted = grpc.ssl_channel_credentials(order["certificate"].encode())
                channel = grpc.secure_channel(order["target"], trusted, own)
            elif order["kind"] == "stock":
                self.stock = self.stock or f"unix:{_stock(order['target'])}"
                channel = grpc.insecure_channel(self.stock, punchbridge.channel_options("bench", override=own))
            else:
                channel = grpc.insecure_channel(order["target"], punchbridge.channel_options("bench", override=own))
            grpc.channel_ready_future(channel).result(20)
            self.channels.append(channel)
        return {}

    def unary(self, order: dict[str, Any]) -> dict[str, Any]:
        """Calls one after another."""
        return {"ms": self._times(order["count"])}

    def _times(self, count: int) -> list[float]:
        echo, times = self.channels[0].unary_unary("/b/Echo", None, None), []
        for _ in range(count):
            began = time.perf_counter()
            echo(SMALL)
            times.append(1000 * (time.perf_counter() - began))
        return times

    def rate(self, order: dict[str, Any]) -> dict[str, Any]:
        """Calls with `flight` of them at once."""
        echo, each = self.channels[0].unary_unary("/b/Echo", None, None), order["count"] // order["flight"]

        def calls(_: int) -> None:
            for _ in range(each):
                echo(SMALL)

        with ThreadPoolExecutor(order["flight"]) as pool:
            began = time.perf_counter()
            list(pool.map(calls, range(order["flight"])))
            return {"seconds": time.perf_counter() - began, "calls": each * order["flight"]}

    def chat(self, order: dict[str, Any]) -> dict[str, Any]:
        """Messages through one bidirectional stream, as many under way as flow control allows."""
        began = time.perf_counter()
        chat: Any = self.channels[0].stream_stream("/b/Chat", None, None)
        seen = sum(1 for _ in chat(SMALL for _ in range(order["count"])))
        return {"seconds": time.perf_counter() - began, "messages": seen}

    def up(self, order: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        self.channels[0].stream_unary("/b/Up", None, None)(MIB for _ in range(order["mib"]))
        return {"seconds": time.perf_counter() - began}

    def down(self, order: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in self.channels[0].unary_stream("/b/Down", None, None)(str(order["mib"]).encode()):
            pass
        return {"seconds": time.perf_counter() - began}

    def loaded(self, order: dict[str, Any]) -> dict[str, Any]:
        """Calls one after another while 1 MiB messages come in on the other channel."""
        flowing, moved = threading.Event(), [0]
        call: Any = self.channels[1].unary_stream("/b/Down", None, None)(b"1000000")

        def bulk() -> None:
            try:
                for _ in call:
                    moved[0] += 1
                    flowing.set()
            except grpc.RpcError:
                pass  # cancelled below

        thread = threading.Thread(target=bulk)
        thread.start()
        flowing.wait(20)
        began, before = time.perf_counter(), moved[0]
        times = self._times(order["count"])
        rate = (moved[0] - before) * 1.048576 / (time.perf_counter() - began)
        call.cancel()
        thread.join()
        return {"ms": times, "bulk": rate}

    def close(self) -> None:
        for channel in self.channels:
            channel.close()


def _stock(addr: str) -> str:
    from stock_grpc import forward  # the other clients need not carry py-libp2p

    return forward(addr)


def main() -> None:
    with punchbridge.open(listen=["/ip4/127.0.0.1/tcp/0"], punch=False, allow_private=True) as b:
        client = Client(b)
        ready(b.peer_id, [], f"grpcio {grpc.__version__}")
        for line in sys.stdin:
            order = json.loads(line)
            try:
                say({"id": order["id"], "ok": getattr(client, order["do"])(order)})
            except Exception as problem:  # noqa: BLE001 - the driver judges
                say({"id": order["id"], "error": repr(problem)})
        client.close()


if __name__ == "__main__":
    main()
