"""Sixteen QUIC connections at an exposed server that never pause: pings, streams, one datagram again and again.

All connections of a UDP socket are read by one task, so whoever sends most is in front of everybody else. Beside them
there are honest calls over QUIC, newcomers, and a connection that stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import punchbridge_quic as quic
import trio

from punchbridge.addresses import Multiaddr, parse
from punchbridge.identity import Identity
from punchbridge.transport.quic.connection import QuicConnection
from punchbridge.transport.quic.endpoint import Line
from punchbridge.transport.quic.sockets import SEGMENTS
from punchbridge.transport.quic.transport import QuicTransport
from punchbridge.wire.multistream import HEADER, line
from punchbridge.wire.ping import PING
from tests.attacks.backend import Server
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Listening
from tests.attacks.wire import Ended

UDP = "/ip4/127.0.0.1/udp/0/quic-v1"
MANY = 16
SOURCE = "127.0.2.2"
CALM = 5.0
"""How many times longer than in calm an honest try may take: the attacker has half of what the machine can do."""
SHORTEST = 100.0
"""Milliseconds that it may take in any case."""


async def pings(below: Line) -> None:
    """Each in a datagram of its own, as fast as they are acknowledged."""
    while not below.gone:
        for _ in range(32):
            below.engine.ping(below.number)
            below.flush()
        await trio.lowlevel.checkpoint()


async def streams(below: Line) -> None:
    """Streams that ask for a protocol and are over: as many as the server allows, again and again."""
    engine, number = below.engine, below.number
    while not below.gone:
        while (stream := engine.open(number)) is not None:
            engine.write(number, stream, HEADER + line(PING))
            engine.finish(number, stream)
            engine.stop(number, stream, 0)
        below.flush()
        await trio.sleep(0.001)


async def repeats(below: Line) -> None:
    """One datagram that was good once, by the dozen."""
    below.engine.ping(below.number)
    packet = below.engine.transmit(below.number, 1, trio.current_time())
    if packet is None:
        raise Ended("nothing to repeat")
    data, _, host, port, source, ecn = packet
    while not below.gone:
        for _ in range(4):
            below.endpoint.socket.send((data * SEGMENTS, len(data), host, port, source, ecn))
        await trio.lowlevel.checkpoint()


async def attack(there: Multiaddr, what: Callable[[Line], Awaitable[None]], sent: list[int]) -> None:
    """Sixteen connections of one address, each with an identity and a socket of its own."""

    async def one() -> None:
        transport = QuicTransport(Identity.generate())
        async with trio.open_nursery() as nursery:
            transport.nursery = nursery
            await transport.listen(parse(f"/ip4/{SOURCE}/udp/0/quic-v1"), lambda incoming: incoming.abort())
            connection = await transport.dial(there, None)
            assert isinstance(connection, QuicConnection)
            try:
                await what(connection._line)
            except quic.QuicError as problem:
                raise Ended(repr(problem)) from None
            finally:
                sent[0] += connection.bytes_sent
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(one)


async def row(
    stage: Stage, server: Listening, there: Multiaddr, name: str, what: Callable[[Line], Awaitable[None]]
) -> Row:
    sent = [0]
    found = await stage.measure(
        f"{MANY} connections of one address: {name}",
        server,
        partial(attack, there, what, sent),
        seconds=stage.pick(15.0, 6.0),
        settle=2.0,
    )
    found.said["MiB sent by engines"] = round(sent[0] / 2**20, 1)
    found.bound("it was attacked", found.cpu > 0.2)
    for kind in ("call", "fresh over QUIC", "ping over QUIC"):
        failed, count = found.failed(kind)
        found.bound(f"no failure: {kind}", count > 0 and failed == 0)
        calm, attacked = found.calm[kind].median, found.attacked[kind].median
        if not stage.short and calm and attacked:
            most = max(SHORTEST, CALM * calm)
            found.bound(f"at most {CALM:g} times calm, or {SHORTEST:g} ms: {kind}", attacked <= most)
    found.bound("memory +32 MiB at most", found.grown <= 32)
    return found


async def main(stage: Stage) -> list[Row]:
    with Server("echo") as backend:  # of its own: the attacker is busy
        return await play(stage, backend)


async def play(stage: Stage, backend: Server) -> list[Row]:
    server = await stage.listening("expose", f"127.0.0.1:{backend.port}", "--open", "--listen", UDP)
    started = server.find("node.started")
    assert started is not None
    udp = next(addr for addr in started["listen"] if "/udp/" in addr)
    there = parse(f"{udp.partition('/p2p/')[0]}")
    await stage.calls(await stage.forward(f"{there}/p2p/{server.peer}"))
    await stage.peer_over_quic(server, int(udp.split("/")[4]))
    kinds = {"pings": pings, "streams": streams, "one datagram, repeated": repeats}
    return [await row(stage, server, there, name, what) for name, what in kinds.items()]
