"""grpcio through the bridge, as a peer of the interop suite: a served grpc.Server, and channels to other peers.

The same service as the other peers': Echo (with a trailer, or NOT_FOUND) and Chat, with bytes as messages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from wire import options, say

import punchbridge

CHATS = 50
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def echo(request: bytes, context: Any) -> bytes:
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")
    context.set_trailing_metadata((("x-size", str(len(request))),))
    return request


def chat(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    yield from requests


def call(b: punchbridge.Bridge, order: dict[str, Any]) -> dict[str, Any]:
    payload = os.urandom(order["size"])
    with b.channel(order["addr"], options=UNLIMITED) as channel:
        unary = channel.unary_unary("/interop.Bytes/Echo")
        answer, ended = unary.with_call(payload, timeout=50)
        try:
            unary(b"fail", timeout=10)
            status = "OK"
        except grpc.RpcError as problem:
            status = problem.code().name  # type: ignore[attr-defined]
        said = [str(number).encode() for number in range(CHATS)]
        heard = list(channel.stream_stream("/interop.Bytes/Chat")(iter(said), timeout=20))
        trailer = [value for key, value in ended.trailing_metadata() if key == "x-size"]
    chats = sum(one == other for one, other in zip(said, heard, strict=True))
    return {"same": answer == payload, "trailer": trailer, "status": status, "chats": chats, "ended": True}


def obey(b: punchbridge.Bridge, order: dict[str, Any]) -> None:
    try:
        say({"id": order["id"], "ok": call(b, order)})
    except Exception as problem:  # noqa: BLE001 - whatever happened is the answer
        say({"id": order["id"], "error": f"{type(problem).__name__}: {problem}"})


def main() -> None:
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    with ThreadPoolExecutor(16) as pool, punchbridge.open(listen=options().listen, allow_private=True) as b:
        server = grpc.server(pool, options=UNLIMITED)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interop.Bytes", handlers),))
        b.serve(server)
        server.start()
        addrs = [f"{addr.partition('/p2p/')[0]}/p2p/{b.peer_id}" for addr in b.addrs]
        say({"event": "ready", "peer": b.peer_id, "addrs": addrs, "version": f"grpcio {grpc.__version__}"})
        for line in sys.stdin:
            pool.submit(obey, b, json.loads(line))
        server.stop(None).wait()


if __name__ == "__main__":
    main()
