"""The gRPC service of the peers with grpcio, with bytes as messages, and the orders that their clients carry out on it.

Echo answers with a trailer or NOT_FOUND, Chat sends each message back, Who says who calls and on which path. The module
knows channels, and nothing of what carries them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from wire import Order, say

import punchbridge
from punchbridge.events import Event, SessionSwitched

CHATS = 50
TALK = 10_000
"""Bytes of a message of a long chat."""
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def echo(request: bytes, context: Any) -> bytes:
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")
    context.set_trailing_metadata((("x-size", str(len(request))),))
    return request


def chat(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    yield from requests


def who(_request: bytes, context: Any) -> bytes:
    caller = punchbridge.peer(context)
    return f"{caller.peer_id} {caller.path}".encode()


def make_server(pool: ThreadPoolExecutor) -> grpc.Server:
    """The server, not started, which an application hands to its bridge."""
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Who": grpc.unary_unary_rpc_method_handler(who),
    }
    server = grpc.server(pool, options=UNLIMITED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interop.Bytes", handlers),))
    return server


def on_event(event: Event) -> None:
    """Tells of each carrier that a session takes."""
    if isinstance(event, SessionSwitched):
        say({"event": event.name, **event.as_dict()})


def exercise(channel: grpc.Channel, size: int) -> dict[str, Any]:
    """One call of each kind: a unary one of `size` bytes, one that fails, a chat."""
    payload = os.urandom(size)
    unary = channel.unary_unary("/interop.Bytes/Echo", None, None)
    answer, ended = unary.with_call(payload, timeout=50)
    try:
        unary(b"fail", timeout=10)
        status = "OK"
    except grpc.RpcError as problem:
        status = problem.code().name
    said = [str(number).encode() for number in range(CHATS)]
    heard = list(channel.stream_stream("/interop.Bytes/Chat", None, None)(iter(said), timeout=20))
    trailer = [value for key, value in ended.trailing_metadata() if key == "x-size"]
    chats = sum(one == other for one, other in zip(said, heard, strict=True))
    return {"same": answer == payload, "trailer": trailer, "status": status, "chats": chats, "ended": True}


def ask_who(channel: grpc.Channel) -> dict[str, Any]:
    peer_id, path = channel.unary_unary("/interop.Bytes/Who", None, None)(b"", timeout=20).decode().split()
    return {"peer": peer_id, "path": path}


def many(channel: grpc.Channel, count: int) -> dict[str, Any]:
    """`count` unary calls under way at once."""
    payloads = [os.urandom(1000) for _ in range(count)]
    unary = channel.unary_unary("/interop.Bytes/Echo", None, None)
    calls = [unary.future(payload, timeout=50) for payload in payloads]
    return {"good": sum(call.result() == payload for call, payload in zip(calls, payloads, strict=True))}


class Talk:
    """A chat that goes on, each message once the one before has come back, until `end`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._enough = threading.Event()
        self._told: Future[int] = Future()
        self._returned: queue.Queue[None] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        messages: queue.Queue[bytes | None] = queue.Queue()
        count = 0
        try:
            answers: Any = self._channel.stream_stream("/interop.Bytes/Chat", None, None)(
                iter(messages.get, None), timeout=60
            )
            while not self._enough.is_set():
                messages.put(said := os.urandom(TALK))
                heard = next(answers)
                if heard != said:
                    raise ValueError(f"message {count} came back as another one")
                count += 1
                self._returned.put(None)
            messages.put(None)
            if left := list(answers):
                raise ValueError(f"{len(left)} messages more came back than were sent")
            if answers.code() is not grpc.StatusCode.OK:
                raise ValueError(f"the chat ended with {answers.code()}")
        except Exception as problem:  # noqa: BLE001 - whatever happened is the result
            self._told.set_exception(problem)
            self._returned.put(None)
        else:
            self._told.set_result(count)

    def more(self) -> dict[str, Any]:
        """Waits for one more message's return, or for the chat's failure, which `end` raises."""
        while not self._returned.empty():
            self._returned.get()
        self._returned.get(timeout=30)
        return {}

    def end(self) -> dict[str, Any]:
        """Ends the chat and its channel. Raises what went wrong in it."""
        self._enough.set()
        try:
            return {"messages": self._told.result(30)}
        finally:
            self._channel.close()


class Orders:
    """Carries out the orders of a client. `channel` opens a channel to an address, in any thread."""

    def __init__(self, channel: Callable[[str], grpc.Channel]) -> None:
        self._channel = channel
        self._talk: Talk | None = None

    def obey(self, order: Order) -> dict[str, Any]:
        """Blocks until the order is carried out. Raises what went wrong."""
        name = order["do"]
        if name == "talk":
            self._talk = Talk(self._channel(order["addr"]))
            return self._talk.more()
        if name in ("more", "enough"):
            assert self._talk is not None
            return self._talk.more() if name == "more" else self._talk.end()
        with self._channel(order["addr"]) as channel:
            if name == "grpc":
                return exercise(channel, order["size"])
            return many(channel, order["count"]) if name == "calls" else ask_who(channel)
