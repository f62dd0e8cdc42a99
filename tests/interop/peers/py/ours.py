"""Our own host as a peer of the interop suite: the same orders as the foreign peers, carried out by the library.

It judges nothing; each answer says what this side saw.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import trio
from exercises import HANDLERS, Handler, SeenReset, exercise, many
from wire import PROTOCOLS, Order, options, say, serve_orders

from punchbridge.access.policy import OPEN
from punchbridge.addresses import parse, with_peer
from punchbridge.config import Punch
from punchbridge.errors import StreamReset
from punchbridge.eventhub import EventHub
from punchbridge.events import (
    AutonatResult,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    PunchFailed,
    PunchSucceeded,
    ReservationAccepted,
)
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, parse_peer_id, peer_text
from punchbridge.keys import PrivateKey
from punchbridge.transport.base import Connection, Stream
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.service import HopService

MANY = 1024
"""Streams of one protocol at once; the suite opens 100."""


class Wrapped:
    """A stream of ours as the exercises want it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def read(self, size: int) -> bytes:
        try:
            return await self._stream.receive_some(size)
        except StreamReset as problem:
            raise SeenReset from problem

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def end(self) -> None:
        await self._stream.send_eof()

    async def reset(self) -> None:
        self._stream.reset()


def serving(handler: Handler) -> Callable[[Stream], Awaitable[None]]:
    async def serve(stream: Stream) -> None:
        await handler(Wrapped(stream))

    return serve


def describe(event: ConnectionOpened | ConnectionClosed) -> dict[str, Any]:
    name = "opened" if isinstance(event, ConnectionOpened) else "closed"
    return {"event": name, **event.as_dict(), "relay": event.path == "relay"}


def on_event(event: Event) -> None:
    if isinstance(event, ConnectionOpened | ConnectionClosed):
        say(describe(event))
    elif isinstance(event, PunchSucceeded | PunchFailed):
        say({"event": "punch", "ok": isinstance(event, PunchSucceeded), **event.as_dict()})
    elif isinstance(event, ReservationAccepted):
        say({"event": "reservation", "relay": event.relay, "renewal": event.renewed})
    elif isinstance(event, AutonatResult):
        say({"event": "autonat", "ok": event.reachability == "public", **event.as_dict()})


class Peer:
    """Carries out orders on one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._swarm = host.swarm

    async def obey(self, order: Order) -> dict[str, Any]:
        name = order["do"]
        if name in PROTOCOLS:
            return await self._stream(name, order)
        result: dict[str, Any] = await getattr(self, f"do_{name}")(order)
        return result

    async def do_dial(self, order: Order) -> dict[str, Any]:
        connection = await self._swarm.dial(parse(order["addr"]), fresh=True)
        return {"peer": peer_text(connection.peer)}

    async def do_reserve(self, order: Order) -> dict[str, Any]:
        got = await self._host.relay_client.reserve(parse(order["addr"]))
        return {
            "addrs": [str(addr) for addr in got.addrs],
            "expires": got.expires,
            "limit_bytes": (got.limit and got.limit.bytes) or 0,
            "limit_seconds": (got.limit and got.limit.seconds) or 0,
        }

    async def do_listen(self, order: Order) -> dict[str, Any]:
        return {"addr": str((await self._swarm.listen(parse(order["addr"])))[0])}

    async def do_conns(self, order: Order) -> dict[str, Any]:
        return {"conns": [self._shown(one) for one in self._connections(order)]}

    async def do_forget(self, order: Order) -> dict[str, Any]:
        """What identify said is kept with the connection, and gone with it."""
        return {}

    async def do_close(self, order: Order) -> dict[str, Any]:
        await self._swarm.close(parse_peer_id(order["peer"]))
        return {}

    async def do_ping(self, order: Order) -> dict[str, Any]:
        pings = self._host.ping.ping(parse_peer_id(order["peer"]), order["count"], interval=0.01)
        async with aclosing(pings):  # type: ignore[type-var]
            return {"ms": [seconds * 1000 async for seconds in pings]}

    async def do_identify(self, order: Order) -> dict[str, Any]:
        connection = self._connections(order)[0]
        await connection.identified.wait()
        info = connection.identify
        if info is None:
            raise LookupError("no identify")
        return {
            "agent": info.agent,
            "protocols": list(info.protocols),
            "listen": [str(addr) for addr in info.listen],
            "observed": str(info.observed),
        }

    def _connections(self, order: Order) -> tuple[Connection, ...]:
        return self._swarm.connections(parse_peer_id(order["peer"]))

    @staticmethod
    def _shown(one: Connection) -> dict[str, Any]:
        return {
            "local": str(one.local),
            "remote": str(one.remote),
            "relay": one.path == "relay",
            "inbound": one.inbound,
        }

    async def _stream(self, name: str, order: Order) -> dict[str, Any]:
        peer = parse_peer_id(order["peer"])

        async def opened() -> Wrapped:
            return Wrapped(await self._swarm.open_stream(peer, [PROTOCOLS[name]]))

        if name == "many":
            return await many(opened, order["count"])
        stream = await self._swarm.open_stream(peer, [PROTOCOLS[name]])
        try:
            return await exercise(name, Wrapped(stream), order)
        finally:
            stream.reset()


async def main() -> None:
    given, hub = options(), EventHub()
    hub.subscribe(on_event)
    given_key = PrivateKey.parse(bytes.fromhex(given.identity)) if given.identity else PrivateKey.generate()
    config = HostConfig(
        Identity.from_private_key(given_key),
        access=OPEN,
        allow_private=not (given.punch or given.autonat),
        punch=Punch(enabled=given.punch),
        autonat=given.autonat,
        autonat_server=given.autonat,
    )
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_host(config, hub))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if given.relay:
            limits = RelayLimits(
                reservations=given.reservations,
                reservations_per_address=0,
                reservation_ttl=given.ttl,
                circuits=given.circuits,
                circuit_bytes=given.limit_bytes,
                circuit_seconds=given.limit_seconds,
            )
            await nursery.start(HopService(host.swarm, limits).run)
        for protocol, handler in HANDLERS.items():
            await host.swarm.handle(protocol, serving(handler), max_streams=MANY, max_per_peer=MANY)
        for addr in given.listen:
            await host.swarm.listen(parse(addr))
        addrs = [str(with_peer(addr, host.swarm.peer)) for addr in host.swarm.listen_addrs()]
        say({"event": "ready", "peer": peer_text(host.swarm.peer), "addrs": addrs, "version": config.agent})
        await serve_orders(Peer(host).obey)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
