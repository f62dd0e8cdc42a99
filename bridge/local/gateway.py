"""The gateway: joins gRPC's unix sockets to libp2p streams, in the trio thread.

For channels it listens (one endpoint for each target, protocol and path) and opens a stream for each connection that
gRPC makes; for servers it takes streams of a protocol and connects each to the server's socket under a name of its
own. It moves no byte itself (pump), picks no path itself (paths) and does not import grpc.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from punchbridge.errors import BridgeError, ConnectionLost, DialTimeout, LimitExceeded, NotAllowed, ServerDown
from punchbridge.events import ErrorEvent
from punchbridge.identity import PeerId, peer_text
from punchbridge.local.paths import accept_streams, carrier_of, open_on_path, refuse_streams, remote_peer
from punchbridge.local.peer import TABLE, ConnectInfo
from punchbridge.local.pump import Pumped, pump
from punchbridge.local.sockets import ServerDoor, SocketDirectory, peer_process
from punchbridge.local.target import PathPolicy, Target
from punchbridge.tasks.supervise import supervise

if TYPE_CHECKING:
    from punchbridge.access.policy import Allow
    from punchbridge.host.host import StreamHost
    from punchbridge.session import SessionStream
    from punchbridge.transport.base import Stream

__all__ = ["EndpointKey", "EndpointUse", "Gateway", "LocalEndpoint", "OpenFailure", "connect_unix", "open_gateway"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndpointKey:
    """What makes two channels share a listener."""

    target: Target
    protocol: str
    path: PathPolicy
    direct_wait: float
    wait_direct: float = 0.0


@dataclass(frozen=True)
class OpenFailure:
    """Why one attempt to open a stream failed. `at`: when, on `time.monotonic`, which all threads share."""

    error: BridgeError
    at: float


@dataclass
class LocalEndpoint:
    """A unix listener for channels. `failure`: of the last attempt to open a stream; None after one succeeded."""

    key: EndpointKey
    name: str
    listener: socket.socket
    failure: OpenFailure | None = None
    streams: int = 0
    infos: dict[int, ConnectInfo] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    uses: weakref.WeakSet[EndpointUse] = field(default_factory=weakref.WeakSet)


class EndpointUse:
    """A channel's hold on an endpoint, which stays while a hold lives: channels are often dropped unclosed."""

    def __init__(self, endpoint: LocalEndpoint) -> None:
        self._endpoint = endpoint
        self.key = endpoint.key
        self.name = endpoint.name
        endpoint.uses.add(self)

    @property
    def failure(self) -> OpenFailure | None:
        """Of the last attempt to open a stream; None after one succeeded."""
        return self._endpoint.failure

    @property
    def info(self) -> ConnectInfo | None:
        """The peer on the newest live stream of this endpoint."""
        return next(reversed(self._endpoint.infos.values()), None)


class Gateway:
    """Made by `open_gateway`. All methods run in the trio thread."""

    def __init__(self, host: StreamHost, directory: SocketDirectory, nursery: trio.Nursery) -> None:
        self.host = host
        self.directory = directory
        self._limits = host.swarm.config.limits.local
        self._nursery = nursery
        self._endpoints: dict[EndpointKey, LocalEndpoint] = {}
        self._errors: OrderedDict[str, BridgeError] = OrderedDict()
        self._doors: dict[str, ServerDoor] = {}

    def last_error(self, peer: PeerId) -> BridgeError | None:
        """Why the last stream to this peer could not be opened; None when it could, or none was tried."""
        return self._errors.get(peer_text(peer))

    # --- channels -----------------------------------------------------------------------------------------

    def endpoint(self, key: EndpointKey) -> EndpointUse:
        """The listener for a key, made at its first use. Raises LimitExceeded beyond `limits.local.endpoints`."""
        known = self._endpoints.get(key)
        if known is not None:
            return EndpointUse(known)
        self._retire()
        if len(self._endpoints) >= self._limits.endpoints:
            raise LimitExceeded(f"channels to {self._limits.endpoints} different targets are open; close some")
        listener, name = self.directory.listen()
        endpoint = self._endpoints[key] = LocalEndpoint(key, name, listener)
        self._nursery.start_soon(self._accept, endpoint)
        return EndpointUse(endpoint)

    def _retire(self) -> None:
        """Closes the listeners whose channels are all gone: else a long life with many peers runs out of places."""
        for endpoint in tuple(self._endpoints.values()):
            if not endpoint.uses and not endpoint.streams:
                del self._endpoints[endpoint.key]
                endpoint.scope.cancel()
                with contextlib.suppress(OSError):
                    os.unlink(endpoint.name)

    async def _accept(self, endpoint: LocalEndpoint) -> None:
        listener = trio.socket.from_stdlib_socket(endpoint.listener)
        with listener, endpoint.scope:
            while True:
                try:
                    accepted, _ = await listener.accept()
                except OSError as problem:
                    # Want of descriptors or memory passes; one bad listener must not take the others along.
                    log.warning("accepting for %s: %s", endpoint.key.target.text, problem.strerror)
                    await trio.sleep(self._limits.accept_pause)
                    continue
                local = socket.socket(fileno=accepted.detach())
                local.setblocking(False)
                pid, uid = peer_process(local)
                if pid != os.getpid():
                    log.warning("refused process %d (uid %d) on the socket of a channel", pid, uid)
                    local.close()
                elif endpoint.streams >= self._limits.endpoint_streams:
                    full = LimitExceeded(f"{self._limits.endpoint_streams} connections to this target are open")
                    endpoint.failure = OpenFailure(full, time.monotonic())
                    local.close()
                else:
                    endpoint.streams += 1
                    self._nursery.start_soon(self._carry_supervised, endpoint, local)

    async def _carry_supervised(self, endpoint: LocalEndpoint, local: socket.socket) -> None:
        """A fault in one connection costs that connection, not the bridge."""
        await supervise("a connection of a channel", lambda: self._carry(endpoint, local), lambda _: None)

    async def _carry(self, endpoint: LocalEndpoint, local: socket.socket) -> None:
        try:
            try:
                stream = await self._open(endpoint.key)
            except BridgeError as problem:
                self._remember(endpoint, problem)
                return
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
                self._remember(endpoint, ConnectionLost(f"the connection broke under an opening stream: {problem}"))
                return
            self._remember(endpoint, None)
            key = endpoint.key
            info = ConnectInfo(peer_text(key.target.peer), key.protocol, carrier_of(stream))
            endpoint.infos[id(info)] = info

            def explain(outcome: Pumped) -> None:
                # Reset before a byte came back: gRPC counts that as a failed connect, so it gets a reason too. Calls
                # that were under way when the peer struck us out get that one.
                problem = outcome.problem
                if problem is not None and (outcome.received == 0 or isinstance(problem, NotAllowed)):
                    self._remember(endpoint, problem)

            try:
                await pump(local, stream, self._limits, before_close=explain)
            finally:
                del endpoint.infos[id(info)]
        finally:
            # At once, so that gRPC sees the failure now and not at its connect time-out.
            local.close()
            endpoint.streams -= 1

    async def _open(self, key: EndpointKey) -> Stream | SessionStream:
        seconds = self.host.times.open_path
        try:
            with trio.fail_after(seconds):
                return await open_on_path(
                    self.host,
                    key.target,
                    key.protocol,
                    key.path,
                    direct_wait=key.direct_wait,
                    wait_direct=key.wait_direct,
                    lazy=True,
                )
        except trio.TooSlowError:
            raise DialTimeout(f"no stream to {key.target.text} within {seconds:g} s") from None

    def _remember(self, endpoint: LocalEndpoint, problem: BridgeError | None) -> None:
        endpoint.failure = None if problem is None else OpenFailure(problem, time.monotonic())
        peer = peer_text(endpoint.key.target.peer)
        self._errors.pop(peer, None)
        if problem is not None:
            log.info("no stream of %s to %s: %s: %s", endpoint.key.protocol, peer, problem.code, problem)
            self._errors[peer] = problem
            if len(self._errors) > self._limits.errors:
                self._errors.popitem(last=False)

    # --- servers ------------------------------------------------------------------------------------------

    async def serve(
        self, door: ServerDoor, protocol: str, path: PathPolicy = "any", allow: Allow | None = None
    ) -> None:
        """Hands inbound streams of a protocol to the server behind the door, which the gateway owns from now on.

        Those on another path than `path` allows are refused, and those of peers that are neither on the host's lists
        nor in `allow`.
        Raises LocalError when the protocol is served already (the door is closed then).
        """

        async def handler(stream: Stream | SessionStream) -> None:
            await self._to_server(door, protocol, stream)

        try:
            await accept_streams(
                self.host,
                protocol,
                handler,
                max_streams=self._limits.served_streams,
                max_per_peer=self._limits.served_streams_per_peer,
                path=path,
                allow=allow,
            )
        except BaseException:  # refused or cancelled: the door is nobody's yet
            door.close()
            raise
        self._doors[protocol] = door

    async def unserve(self, protocol: str) -> None:
        """Takes no more streams of the protocol; those that are carried go on. Idempotent."""
        door = self._doors.pop(protocol, None)
        if door is not None:
            try:
                await refuse_streams(self.host, protocol)
            finally:
                door.close()

    async def _to_server(self, door: ServerDoor, protocol: str, stream: Stream | SessionStream) -> None:
        info = ConnectInfo(peer_text(remote_peer(stream)), protocol, carrier_of(stream))
        try:
            local, name = self.directory.named_socket()
        except OSError as problem:
            log.warning("no socket for a stream of %s: %s", protocol, problem.strerror)
            stream.abort()
            return
        TABLE.add(name, info)
        try:
            await connect_unix(local, lambda: door.address, self._limits.connect_timeout)
            await pump(local, stream, self._limits)
        except OSError as problem:
            text = f"the server of {protocol} takes no connection: {problem.strerror}; was it started, and not stopped?"
            log.info("%s", text)
            self.host.swarm.events.emit(ErrorEvent(code=ServerDown.code, message=text))
            stream.abort()
        finally:
            TABLE.remove(name)
            local.close()

    def close(self) -> None:
        """Closes listeners and doors, once the tasks have ended; idempotent."""
        for endpoint in self._endpoints.values():
            endpoint.listener.close()
        for door in self._doors.values():
            door.close()
        self._endpoints.clear()
        self._doors.clear()


async def connect_unix(local: socket.socket, address: Callable[[], str], seconds: float) -> None:
    """Connects a non-blocking unix socket; the address is asked for anew at each try. Raises OSError; ETIMEDOUT when
    the server's queue stays full for so many seconds."""
    pause = 0.001
    with trio.move_on_after(seconds):
        while True:
            try:
                return local.connect(address())
            except BlockingIOError:
                # unix(7): EAGAIN is a full backlog, and nothing tells when it empties.
                await trio.sleep(pause)
                pause = min(2 * pause, 0.1)
    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


@asynccontextmanager
async def open_gateway(host: StreamHost) -> AsyncIterator[Gateway]:
    """Runs a gateway over a host. At its end all its streams are reset and its directory is removed."""
    directory = SocketDirectory()
    gateway: Gateway | None = None
    try:
        async with trio.open_nursery() as nursery:
            gateway = Gateway(host, directory, nursery)
            try:
                yield gateway
            finally:
                nursery.cancel_scope.cancel()
    finally:
        if gateway is not None:
            gateway.close()
        directory.close()
