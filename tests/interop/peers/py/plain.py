"""grpcio on plain TCP for the interop suite: a server, and a client that carries out orders given as JSON lines.

Messages are bytes; the same service as grpc.js beside it. It knows no bridge: whoever calls it, or whom it calls,
comes through a port on loopback.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count as numbers
from queue import SimpleQueue
from typing import Any

import grpc
from wire import say

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SEEN_WITHIN = 10.0
"""Seconds in which the server must have learnt that a call is over."""
LONGEST = 50.0
SERVICE = "/interop.Bytes/"
Order = dict[str, Any]

CODES = {code.value[0]: code for code in grpc.StatusCode}
ended = numbers()
seen = [0]


def _until_over(context: Any) -> None:
    over = threading.Event()
    if not context.add_callback(over.set) or over.wait(LONGEST):
        seen[0] = next(ended) + 1


def echo(request: bytes, context: Any) -> bytes:
    asked = dict(context.invocation_metadata()).get("x-initial", "")
    context.send_initial_metadata((("x-initial", asked),))
    context.set_trailing_metadata((("x-size", str(len(request))),))
    return request


def status(request: bytes, context: Any) -> bytes:
    wanted = json.loads(request)
    context.set_trailing_metadata((("x-code", str(wanted["code"])),))
    context.abort(CODES[wanted["code"]], wanted["details"])
    return b""


def wait(_request: bytes, context: Any) -> bytes:
    """Sends nothing until the call is over."""
    _until_over(context)
    return b""


def drip(_request: bytes, context: Any) -> Iterator[bytes]:
    """One message, then nothing until the call is over."""
    yield b"first"
    _until_over(context)


def cancelled(_request: bytes, _context: Any) -> bytes:
    return str(seen[0]).encode()


def collect(requests: Iterator[bytes], _context: Any) -> bytes:
    return str(sum(len(one) for one in requests)).encode()


def spread(request: bytes, _context: Any) -> Iterator[bytes]:
    wanted = json.loads(request)
    for i in range(wanted["count"]):
        yield bytes([i % 256]) * wanted["size"]


def chat(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    yield from requests


UNARY = {"Echo": echo, "Status": status, "Wait": wait, "Cancelled": cancelled}
HANDLERS = {
    **{name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in UNARY.items()},
    "Drip": grpc.unary_stream_rpc_method_handler(drip),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Spread": grpc.unary_stream_rpc_method_handler(spread),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}


def pattern(size: int) -> bytes:
    text = b"a pattern that no page repeats, "
    return (text * (size // len(text) + 1))[:size]


def unary(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    sent = pattern(order["size"])
    method = channel.unary_unary(SERVICE + "Echo", None, None)
    answer, call = method.with_call(sent, timeout=LONGEST, metadata=(("x-initial", "asked"),))
    initial = [value for key, value in call.initial_metadata() if key == "x-initial"]
    trailer = [value for key, value in call.trailing_metadata() if key == "x-size"]
    return {"code": call.code().name, "same": answer == sent, "initial": initial, "trailer": trailer}


def many(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    method = channel.unary_unary(SERVICE + "Echo", None, None)
    said = [f"call {i}".encode() for i in range(order["count"])]
    calls = [method.future(one, timeout=LONGEST) for one in said]
    return {"good": sum(call.result() == one for call, one in zip(calls, said, strict=True))}


def collect_call(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    messages = (pattern(order["size"]) for _ in range(order["count"]))
    return {"total": int(channel.stream_unary(SERVICE + "Collect", None, None)(messages, timeout=LONGEST))}


def spread_call(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    request = json.dumps({"count": order["count"], "size": order["size"]}).encode()
    call = channel.unary_stream(SERVICE + "Spread", None, None)(request, timeout=LONGEST)
    good = sum(one == bytes([i % 256]) * order["size"] for i, one in enumerate(call))
    return {"code": call.code().name, "good": good}


def chat_call(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    """Each message after the answer to the one before."""
    said = [f"{i} ".encode() + pattern(order["size"]) for i in range(order["count"])]
    turns: SimpleQueue[bytes | None] = SimpleQueue()
    call: Any = channel.stream_stream(SERVICE + "Chat", None, None)(iter(turns.get, None), timeout=LONGEST)
    heard = []
    for one in said:
        turns.put(one)
        heard.append(next(call))
    turns.put(None)
    rest = list(call)
    good = sum(one == other for one, other in zip(said, heard, strict=True))
    return {"code": call.code().name, "good": good, "heard": len(heard) + len(rest)}


def status_call(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    request = json.dumps({"code": order["code"], "details": order["details"]}).encode()
    call = channel.unary_unary(SERVICE + "Status", None, None).future(request, timeout=LONGEST)
    trailer = [value for key, value in call.trailing_metadata() if key == "x-code"]
    return {"code": call.code().name, "details": call.details(), "trailer": trailer}


def unimplemented(channel: grpc.Channel, _order: Order) -> dict[str, Any]:
    return {"code": channel.unary_unary(SERVICE + "Nothing", None, None).future(b"", timeout=LONGEST).code().name}


def _cancellations(channel: grpc.Channel) -> int:
    return int(channel.unary_unary(SERVICE + "Cancelled", None, None)(b"", timeout=LONGEST))


def _over(channel: grpc.Channel, before: int) -> bool:
    until = time.monotonic() + SEEN_WITHIN
    while time.monotonic() < until:
        if _cancellations(channel) > before:
            return True
        time.sleep(0.02)
    return False


def cancel(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    before = _cancellations(channel)
    call: Any
    if order["after"] == "first message":
        call = channel.unary_stream(SERVICE + "Drip", None, None)(b"", timeout=LONGEST)
        next(call)
    else:
        call = channel.unary_unary(SERVICE + "Wait", None, None).future(b"", timeout=LONGEST)
        time.sleep(0.3)
    call.cancel()
    return {"code": call.code().name, "seen": _over(channel, before)}


def deadline(channel: grpc.Channel, order: Order) -> dict[str, Any]:
    before = _cancellations(channel)
    call = channel.unary_unary(SERVICE + "Wait", None, None).future(b"", timeout=order["seconds"])
    return {"code": call.code().name, "seen": _over(channel, before)}


ORDERS: dict[str, Callable[[grpc.Channel, Order], dict[str, Any]]] = {
    "unary": unary,
    "many": many,
    "collect": collect_call,
    "spread": spread_call,
    "chat": chat_call,
    "status": status_call,
    "unimplemented": unimplemented,
    "cancel": cancel,
    "deadline": deadline,
}


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(32), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interop.Bytes", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channels: dict[str, grpc.Channel] = {}
    say({"event": "ready", "peer": "", "addrs": [f"127.0.0.1:{port}"], "version": f"grpcio {grpc.__version__}"})
    for line in sys.stdin:
        order = json.loads(line)
        if order["addr"] not in channels:
            channels[order["addr"]] = grpc.insecure_channel(order["addr"], options=OPTIONS)
        try:
            say({"id": order["id"], "ok": ORDERS[order["do"]](channels[order["addr"]], order)})
        except Exception as problem:  # noqa: BLE001 - whatever happened is the answer
            say({"id": order["id"], "error": f"{type(problem).__name__}: {problem}"})
    for channel in channels.values():
        channel.close()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
