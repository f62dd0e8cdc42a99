"""The honest peer beside an attack, in a process of its own: `python -m tests.attacks.probe`.

`peer IP PORT SOURCE [KEYFILE]`: one standing connection that is pinged, and fresh connections one after another.
`quic IP PORT SOURCE`: the same over QUIC.
`calls SOCKET`: short connections through a program that forwards, each of which echoes sixteen bytes.
Prints a JSON list a line for each try: kind, when it ended (the clock that all processes share), seconds, ok, why not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from punchbridge.addresses import parse
from punchbridge.errors import BridgeError
from punchbridge.identity import Identity
from punchbridge.keys import PrivateKey
from punchbridge.transport.base import Connection
from tests.attacks.attacker import Attacker
from tests.attacks.wire import EXPECTED

EVERY = 0.25
"""Seconds between two tries."""

PATIENCE = 10.0
"""Seconds after which a try has failed."""


def _note(kind: str, seconds: float, problem: BaseException | str | None) -> None:
    print(json.dumps([kind, time.monotonic(), seconds, problem is None, repr(problem)[:120]]), flush=True)


async def _try(kind: str, what: Callable[[], Awaitable[None]]) -> bool:
    began = time.monotonic()
    problem: BaseException | None = None
    try:
        with trio.fail_after(PATIENCE):
            await what()
    except (*EXPECTED, BridgeError) as error:
        problem = error
    _note(kind, time.monotonic() - began, problem)
    return problem is None


async def _peer(ip: str, port: int, source: str, identity: Identity) -> None:
    async def fresh() -> None:
        connection = await Attacker.dial(ip, port, source=source, identity=Identity.generate())
        connection.abort()

    async def again() -> None:
        while True:
            await _try("fresh", fresh)
            await trio.sleep(EVERY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(again)
        while True:
            try:
                connection = await Attacker.dial(ip, port, source=source, identity=identity)
            except EXPECTED as problem:
                _note("ping", 0.0, problem)
                await trio.sleep(EVERY)
                continue
            await _standing(connection)


async def _standing(connection: Attacker) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(connection.run)
        number = 0
        while connection.dead is None:
            number += 1

            async def ping(value: int = number) -> None:
                await connection.ping(value)

            if not await _try("ping", ping):
                connection.abort()
                break
            await trio.sleep(EVERY)
        nursery.cancel_scope.cancel()


async def _calls(path: str) -> None:
    async def call() -> None:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"honest honest ho")
            got = b""
            while len(got) < 16:
                data = await stream.receive_some(64)
                if not data:
                    raise trio.BrokenResourceError(f"ended after {len(got)} of 16 bytes")
                got += data

    while True:
        await _try("call", call)
        await trio.sleep(EVERY)


async def _quic(ip: str, port: int, source: str) -> None:
    """As `_peer`. Both kinds of connections leave from one socket, as those of one program do."""
    from punchbridge.transport.quic.transport import QuicTransport  # where its engine is built

    there = parse(f"/ip4/{ip}/udp/{port}/quic-v1")
    async with trio.open_nursery() as nursery:
        transport = QuicTransport(Identity.generate())
        transport.nursery = nursery
        await transport.listen(parse(f"/ip4/{source}/udp/0/quic-v1"), lambda incoming: incoming.abort())

        async def fresh() -> None:
            connection = await transport.dial(there, None)
            connection.abort("NORMAL")

        async def again() -> None:
            while True:
                await _try("fresh over QUIC", fresh)
                await trio.sleep(EVERY)

        nursery.start_soon(again)
        while True:
            try:
                connection = await transport.dial(there, None)
            except BridgeError as problem:
                _note("ping over QUIC", 0.0, problem)
                await trio.sleep(EVERY)
                continue
            nursery.start_soon(connection.run, lambda stream, _: stream.reset(), tuple)

            async def ping(connection: Connection = connection) -> None:
                await connection.ping()

            while True:
                if not await _try("ping over QUIC", ping):
                    break
                await trio.sleep(EVERY)
            connection.abort("NORMAL")


def main(arguments: list[str]) -> None:
    if arguments[0] == "calls":
        trio.run(_calls, arguments[1])
        return
    if arguments[0] == "quic":
        trio.run(_quic, arguments[1], int(arguments[2]), arguments[3])
        return
    ip, port, source, *key = arguments[1:]
    identity = Identity.from_private_key(PrivateKey.parse(Path(key[0]).read_bytes())) if key else Identity.generate()
    trio.run(_peer, ip, int(port), source, identity)


if __name__ == "__main__":
    main(sys.argv[1:])
