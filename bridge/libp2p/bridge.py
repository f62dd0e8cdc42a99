"""What an application with a py-libp2p host holds: gRPC servers and channels, and plain streams, over that host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

from punchbridge.access.policy import Access, Allow
from punchbridge.addresses import Multiaddr
from punchbridge.api.trio import Acceptor, BridgeStream
from punchbridge.config import Limits
from punchbridge.errors import BridgeError, ConfigError
from punchbridge.eventhub import EventHub
from punchbridge.host.host import StreamHost
from punchbridge.identity import peer_text
from punchbridge.libp2p.swarm import HostSwarm, Settings
from punchbridge.local.gateway import EndpointKey, Gateway, open_gateway
from punchbridge.local.paths import open_on_path
from punchbridge.local.sockets import ServerDoor
from punchbridge.local.target import GRPC_PROTOCOL, check_protocol, parse_target
from punchbridge.rpc.channel import ReasonedChannel, open_channel
from punchbridge.rpc.options import Options, channel_options
from punchbridge.session.around import Around
from punchbridge.session.service import SessionService

if TYPE_CHECKING:
    import grpc
    import grpc.aio
    from libp2p.abc import IHost

    from punchbridge.events import Event

__all__ = ["HostBridge", "open_over"]


class HostBridge:
    """A bridge over a py-libp2p host, made by `open_over`. Its methods are called in the host's trio run."""

    def __init__(self, host: StreamHost, gateway: Gateway) -> None:
        self._host = host
        self._gateway = gateway
        self.peer_id: str = peer_text(host.swarm.peer)

    @property
    def sessions(self) -> SessionService:
        """The sessions that run, for their counts."""
        return self._host.sessions

    async def serve(
        self, server: grpc.Server | grpc.aio.Server, protocol: str = GRPC_PROTOCOL, *, allow: Allow | None = None
    ) -> None:
        """Lets peers of the host reach a grpc server by streams of `protocol`. Call it before `server.start()`.

        Inside its handlers `punchbridge.peer(context)` tells who calls. Raises ConfigError when the protocol is served
        already or grpc cannot bind.
        """
        check_protocol(protocol)
        name = self._gateway.directory.name("s")
        try:
            bound = server.add_insecure_port(f"unix:{name}")
        except RuntimeError as problem:
            raise ConfigError(f"the grpc server takes no unix socket: {problem}") from None
        if not bound:
            raise ConfigError("the grpc server takes no unix socket; call serve() before server.start()")
        await self._gateway.serve(ServerDoor(name), protocol, allow=allow)

    async def unserve(self, protocol: str = GRPC_PROTOCOL) -> None:
        """Takes no more streams of the protocol; RPCs under way go on. Idempotent."""
        await self._gateway.unserve(protocol)

    def channel(
        self,
        target: str | Multiaddr,
        *,
        protocol: str = GRPC_PROTOCOL,
        options: Options = (),
        call_credentials: grpc.CallCredentials | None = None,
    ) -> ReasonedChannel:
        """A grpc channel to a peer: its id when the host is connected to it or knows its addresses, or its multiaddr
        ending in /p2p/ID. Its calls block, so they belong into a thread (`trio.to_thread.run_sync`).

        A failed dial ends RPCs with UNAVAILABLE and details that begin with the error's code.
        """
        parsed = parse_target(target)
        key = EndpointKey(parsed, check_protocol(protocol), "any", self._host.times.direct_wait, 0.0)
        arguments = channel_options(peer_text(parsed.peer), override=options)
        return open_channel(self._gateway.endpoint(key), arguments, call_credentials=call_credentials)

    def last_error(self, peer: str) -> BridgeError | None:
        """Why the last stream of a channel to this peer could not be opened; None when it could be."""
        return self._gateway.last_error(parse_target(peer).peer)

    async def dial_stream(self, target: str | Multiaddr, protocol: str) -> BridgeStream:
        """Opens a stream of `protocol`, a session where the peer knows sessions. Errors as the channel's."""
        stream = await open_on_path(
            self._host, parse_target(target), check_protocol(protocol), "any", direct_wait=self._host.times.direct_wait
        )
        return BridgeStream(stream, protocol, self._host.swarm.config.limits.local.read)

    def accept_stream(
        self,
        protocol: str,
        *,
        max_streams: int | None = None,
        max_per_peer: int | None = None,
        allow: Allow | None = None,
    ) -> Acceptor:
        """Takes inbound streams of a protocol: `async for stream in b.accept_stream(id)`.

        max_streams, max_per_peer: at once, by default `limits.local.served_streams` and `served_streams_per_peer`.
        """
        return Acceptor(self._host, check_protocol(protocol), max_streams, max_per_peer, "any", allow)


@asynccontextmanager
async def open_over(
    host: IHost,
    *,
    allow: Allow = (),
    deny: Iterable[str] = (),
    allow_private: bool = False,
    limits: Limits | None = None,
    events: Callable[[Event], None] | None = None,
) -> AsyncIterator[HostBridge]:
    """A bridge over a running py-libp2p host, for the length of the block and in the host's own trio run.

    allow: peer ids and networks that may call what is served here, or punchbridge.ANYONE; the default is nobody.
    deny: those who may not, whatever else is said.
    allow_private: sessions may take relays at private addresses that a peer names. limits: those of sessions, of their
    paths and of the local end apply. events: called on each event; it must return fast. At the end sessions are reset,
    handlers are removed, and the host is as it was.
    """
    hub = EventHub()
    if events is not None:
        hub.subscribe(events)
    swarm = HostSwarm(host, hub, Settings(allow_private, limits or Limits(), Access.of(allow, deny)))
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        # The relays and the punches of the host are the host's own: sessions are given none.
        whole = StreamHost(swarm=cast(Any, swarm), sessions=SessionService(Around(cast(Any, swarm))))
        async with trio.open_nursery() as inner:
            await inner.start(whole.sessions.run)
            async with open_gateway(whole) as gateway:
                yield HostBridge(whole, gateway)
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
