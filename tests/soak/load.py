"""The loads of a soak run. Each proves its own messages: every one back, once, in order, with the other end's hash."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from common import ASK, ECHO, SERVICE, TAKE, digest, message

import punchbridge

ASKERS = 16
SMALL, LARGE = 700, 1 << 20


class Load:
    """Streams and calls until `stop`; `failures` says what went wrong, empty when all is right."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.failures: list[str] = []
        self.counts = {"small": 0, "large": 0, "unary": 0}
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=self._guarded, args=(work, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except (grpc.RpcError, AssertionError) as problem:
            self.failures.append(f"{work.__name__}: {str(problem)[:400]}")

    def stop(self, seconds: float) -> None:
        """Ends the streams in good order and waits for their last message."""
        self.over.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self._threads)
        if stuck:
            self.failures.append(f"{stuck} loads did not end within {seconds:g} s")

    def echoes(self, channel: grpc.Channel, kind: str, size: int, ahead: int, pause: float) -> None:
        """A bidi stream with `ahead` messages under way; each has to come back as it was sent, in its turn."""
        seen, window, sent = hashlib.sha256(), threading.Semaphore(ahead), [0]

        def requests() -> Iterator[bytes]:
            while not self.over.is_set():
                if not window.acquire(timeout=0.5):
                    continue
                data = message(sent[0], size)
                seen.update(data)
                sent[0] += 1
                yield data
                time.sleep(pause)

        back = 0
        for reply in channel.stream_stream(f"/{SERVICE}/{ECHO}", None, None)(requests()):
            if reply[:6] == b"sha256" and len(reply) == 38:
                assert back == sent[0], f"{back} of {sent[0]} messages came back"
                assert reply[6:] == seen.digest(), "the other end's hash differs"
                return
            assert reply == message(back, size), f"message {back} is not the one sent"
            back += 1  # noqa: SIM113 - the loop ends inside
            self.counts[kind] = back
            window.release()
        raise AssertionError("the stream ended without its hash")

    def asks(self, channel: grpc.Channel, first: int) -> None:
        """Unary calls, one after the other."""
        ask, number = channel.unary_unary(f"/{SERVICE}/{ASK}", None, None), first
        while not self.over.is_set():
            data = message(number, 4096)
            assert ask(data, timeout=60) == digest(data), f"call {number} got another answer"
            number += 1
            self.counts["unary"] += 1
            time.sleep(0.01)


def caps(b: punchbridge.Bridge, circuit: str, size: int) -> dict[str, Any]:
    """One client stream of `size` bytes over the relay only, and the hash of what arrived."""
    piece, sent = 256 << 10, hashlib.sha256()

    def requests() -> Iterator[bytes]:
        for number in range(size // piece):
            data = message(number, piece)
            sent.update(data)
            yield data

    began, failures = time.monotonic(), []
    with b.channel(circuit, path="relay", fresh=True) as channel:
        try:
            answer = channel.stream_unary(f"/{SERVICE}/{TAKE}", None, None)(requests())
            if answer != size.to_bytes(8, "big") + sent.digest():
                failures.append(f"{int.from_bytes(answer[:8], 'big')} bytes arrived, or others")
        except grpc.RpcError as problem:
            failures.append(str(problem)[:400])
    seconds = time.monotonic() - began
    return {"failures": failures, "bytes": size, "kib_per_second": round(size / 1024 / seconds, 1)}
