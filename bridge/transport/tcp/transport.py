"""TCP as a transport: connections from the listening port and to it, secured and muxed by the house's upgrader.

It knows sockets, ports and their clashes, and no table of connections. Names are resolved before they come here.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import trio

from punchbridge.addresses import Endpoint, Multiaddr, endpoint_of, is_relayed, without_peer
from punchbridge.config import TcpLimits
from punchbridge.errors import AddressError, AuthenticationFailed, Unreachable, WrongPeer
from punchbridge.events import Role
from punchbridge.identity import PeerId
from punchbridge.transport.base import Accept, Connection, Upgrader
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.listener import Listeners
from punchbridge.transport.tcp.sockets import AcceptedSocket, TcpStream, connect, numeric, open_stream, unreachable

__all__ = ["TcpTransport"]

_log = logging.getLogger(__name__)

_NOT_FROM_THERE: Final = {errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EINVAL}
"""connect(2) from the listening port: the 4-tuple exists already, here or half-open at the listener, or the address
bound cannot send to that destination."""


@dataclass(frozen=True)
class _Accepted:
    """A socket that a listener has accepted; see `base.Incoming`."""

    socket: AcceptedSocket
    upgrader: Upgrader

    @property
    def host(self) -> str:
        return self.socket.host

    @property
    def room(self) -> int | None:
        return self.socket.room

    @property
    def silent(self) -> bool:
        return self.socket.silent

    async def secure(self) -> Connection:
        return await self.upgrader.upgrade(_link(self.socket.take(), inbound=True), role="responder", expected=None)

    def abort(self) -> None:
        self.socket.discard()


class TcpTransport:
    """See `base.ServingTransport`. Dials leave from the listening port where there is one."""

    nursery: trio.Nursery

    def __init__(self, upgrader: Upgrader, listeners: Listeners, limits: TcpLimits) -> None:
        self._limits = limits
        self._upgrader = upgrader
        self._listeners = listeners

    def handles(self, addr: Multiaddr) -> bool:
        """An IP and a TCP port; names are resolved before they come here."""
        endpoint = None if is_relayed(addr) else endpoint_of(addr)
        return endpoint is not None and endpoint.proto == "tcp" and endpoint.kind in ("ip4", "ip6")

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        """Connects to a numeric address, from the listening port if that can be.

        Raises Unreachable, DialTimeout, AddressError (our own listening address) and what the upgrader raises. A
        cancelled call leaves no socket.
        """
        endpoint = numeric(addr)
        if self._listeners.is_own(endpoint):
            raise AddressError(f"{addr} is our own listening address; dial another peer")
        target = without_peer(addr)
        stream = await self._connect(target, endpoint)
        try:
            return await self._secure(stream, "initiator", expected)
        except WrongPeer:
            raise
        except AuthenticationFailed:
            # Two nodes that dial each other at one moment, both from their listening ports, get one TCP connection
            # by simultaneous open (RFC 9293 section 3.5) with an initiator at either end. Another port parts them.
            local = endpoint_of(stream.local)
            if local is None or not self._listeners.is_own(local):
                raise
        _log.debug("%s: handshake clash from the listening port, then from another port", addr)
        stream = await connect(target, self._limits)
        return await self._secure(stream, "initiator", expected)

    async def _secure(self, stream: TcpStream, role: Role, expected: PeerId | None) -> Connection:
        return await self._upgrader.upgrade(_link(stream, inbound=False), role=role, expected=expected)

    async def _connect(self, target: Multiaddr, endpoint: Endpoint) -> TcpStream:
        source = self._listeners.source_for(endpoint.ip)
        try:
            return await open_stream(endpoint, self._limits, source=source)
        except OSError as problem:
            busy = problem.errno
            if source is None or busy not in _NOT_FROM_THERE:
                raise unreachable(target, problem) from None
        note = f"{errno.errorcode[busy]} from the listening port {source[1]}, then from another port"
        _log.debug("%s: %s", target, note)
        try:
            return await connect(target, self._limits)
        except Unreachable as problem:
            raise type(problem)(f"{note}: {problem}", problem.attempts) from problem

    async def listen(self, addr: Multiaddr, accept: Accept) -> tuple[Multiaddr, ...]:
        """Binds an IP and port (0 = any; 0.0.0.0 and :: = every interface) and starts to accept.

        Returns the bound addresses. Raises AddressError, PortInUse, LimitExceeded.
        """
        await trio.lowlevel.checkpoint()

        def accepted(sock: AcceptedSocket) -> None:
            accept(_Accepted(sock, self._upgrader))

        return self._listeners.listen(addr, accepted, self.nursery)

    def addrs(self) -> tuple[Multiaddr, ...]:
        """See `base.ServingTransport`."""
        return self._listeners.addrs()

    def port(self, version: int) -> tuple[str, int] | None:
        """See `base.ServingTransport`."""
        return self._listeners.port(version)

    def divert(
        self, matches: Callable[[Multiaddr], bool]
    ) -> AbstractContextManager[trio.MemoryReceiveChannel[TcpStream]]:
        """See `Listeners.divert`."""
        return self._listeners.divert(matches)

    def unlisten(self, addr: Multiaddr) -> None:
        """See `base.ServingTransport`."""
        self._listeners.unlisten(addr)

    def stop(self) -> None:
        """See `base.ServingTransport`."""
        self._listeners.stop()


def _link(stream: TcpStream, *, inbound: bool) -> Link:
    return Link(raw=stream, local=stream.local, remote=stream.remote, path="direct", inbound=inbound)
