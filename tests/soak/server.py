"""The listening half of a soak run: a grpc server behind the bridge, and a tormentor that kills its connections.

server.py --listen ADDR … --relay ADDR --torment SECONDS [--punch]
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import trio
from common import ASK, ECHO, FLOW, SERVICE, TAKE, digest, memory, say

import punchbridge

HANDLERS = 96


def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Sends each message back; the last is the hash of all that came."""
    seen = hashlib.sha256()
    for request in requests:
        seen.update(request)
        yield request
    yield b"sha256" + seen.digest()


def ask(request: bytes, context: grpc.ServicerContext) -> bytes:
    return digest(request)


def flow(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Messages of 1 KiB at the rate asked for, until the caller has enough."""
    pause, number, begun = 1 / int(request), 0, time.monotonic()
    while context.is_active():
        yield number.to_bytes(8, "big") + bytes(1016)
        number += 1
        time.sleep(max(0.0, begun + number * pause - time.monotonic()))


def take(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    seen, size = hashlib.sha256(), 0
    for request in requests:
        seen.update(request)
        size += len(request)
    return size.to_bytes(8, "big") + seen.digest()


def handlers() -> grpc.GenericRpcHandler[bytes, bytes]:
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            ECHO: grpc.stream_stream_rpc_method_handler(echo),
            ASK: grpc.unary_unary_rpc_method_handler(ask),
            FLOW: grpc.unary_stream_rpc_method_handler(flow),
            TAKE: grpc.stream_unary_rpc_method_handler(take),
        },
    )


async def torment(b: punchbridge.Bridge, mean: float) -> None:
    """Kills a connection of some session now and then, for as long as the bridge lives."""
    host, chance = b._control.host, random.Random(11)
    while True:
        await trio.sleep(chance.uniform(0.5, 1.5) * mean)
        sessions = [one for one in host.sessions.accepted if one.active is not None]
        if sessions:
            carrier = chance.choice(sessions).active
            assert carrier is not None
            carrier.connection.abort("TORMENT")
            say("killed", path=carrier.connection.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--relay", required=True)
    parser.add_argument("--torment", type=float, default=0.0)
    parser.add_argument("--punch", action="store_true")
    arguments = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server = grpc.server(ThreadPoolExecutor(HANDLERS), options=punchbridge.server_options())
    server.add_generic_rpc_handlers((handlers(),))
    punch = punchbridge.Punch(enabled=arguments.punch, retry=1.0)
    with punchbridge.open(
        listen=arguments.listen, relays=[arguments.relay], punch=punch, allow=punchbridge.ANYONE
    ) as b:
        b.serve(server)
        server.start()
        b.wait_reservation(20.0)
        say("ready", addrs=list(b.addrs), peer_id=b.peer_id)
        if arguments.torment:
            b._thread.submit(lambda: torment(b, arguments.torment))
        while not over.wait(1.0):
            say("memory", **memory())
        server.stop(0).wait(5.0)


if __name__ == "__main__":
    main()
