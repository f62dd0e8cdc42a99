"""Listening sockets: binding, accepting, the source port of our dials, and diverting sockets to the puncher.

It hands accepted sockets on without reading a byte. Whether they are welcome is judged by who takes them.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import trio

from punchbridge.addresses import Endpoint, Multiaddr, endpoint_of, is_relayed, peer_of, spoken_endpoint, tcp_addr
from punchbridge.config import TcpLimits
from punchbridge.errors import AddressError, BridgeError, LimitExceeded
from punchbridge.eventhub import EventHub
from punchbridge.events import ErrorEvent
from punchbridge.iana import IP, kind_of
from punchbridge.tasks.descriptors import Spare
from punchbridge.transport.interfaces import expand, is_local
from punchbridge.transport.tcp.sockets import AcceptedSocket, TcpStream, listen_socket

__all__ = ["Listeners"]

_log = logging.getLogger(__name__)

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REPORTED_EVERY: Final = 30.0
"""Seconds between two reports that nothing can be accepted: it may be so for each socket that comes."""

_CLOSED = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}


@dataclass(eq=False)
class _Listener:
    socket: trio.socket.SocketType
    ip: IP
    port: int
    accepted: Callable[[AcceptedSocket], None]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass(eq=False)
class _Diverter:
    matches: Callable[[Multiaddr], bool]
    channel: trio.MemorySendChannel[TcpStream]


class Listeners:
    """All listening sockets of a transport. `changed` is called when their addresses have changed."""

    def __init__(self, changed: Callable[[], None], events: EventHub, limits: TcpLimits) -> None:
        self._changed = changed
        self._events = events
        self._limits = limits
        self._listeners: list[_Listener] = []
        self._diverters: list[_Diverter] = []
        self._spare = Spare()
        self._report_again = -math.inf

    def listen(
        self, addr: Multiaddr, accepted: Callable[[AcceptedSocket], None], nursery: trio.Nursery
    ) -> tuple[Multiaddr, ...]:
        """Binds and starts to accept in `nursery`; `accepted` takes each socket over, synchronously.

        Returns the bound addresses, wildcards expanded, port resolved.

        Raises AddressError when the address is not an IP and TCP alone, PortInUse, LimitExceeded.
        """
        endpoint = _listenable(addr)
        most = self._limits.listeners
        if len(self._listeners) >= most:
            raise LimitExceeded(f"at most {most} listening addresses; name fewer")
        sock = listen_socket(tcp_addr(endpoint.host, endpoint.port), self._limits)
        name = sock.getsockname()
        listener = _Listener(sock, ip_address(name[0].partition("%")[0]), int(name[1]), accepted)
        self._listeners.append(listener)
        nursery.start_soon(self._accept, listener)
        self._spare.hold()
        self._changed()
        return self._expanded(listener)

    async def _accept(self, listener: _Listener) -> None:
        try:
            with listener.scope:
                waiting = False
                while True:
                    try:
                        sock, name = await listener.socket.accept()
                    except OSError as problem:
                        if problem.errno in _CLOSED:
                            return
                        if problem.errno in _EXHAUSTED:
                            await self._make_room(listener, problem, waiting=waiting)
                            waiting = True
                        continue  # anything else belongs to one socket that died in the queue: accept(2)
                    waiting = False
                    self._hand_on(AcceptedSocket(sock, name[0], self._limits), listener.accepted)
                    self._spare.hold()
        finally:
            listener.socket.close()
            if listener in self._listeners:
                self._listeners.remove(listener)
                self._changed()
            if not self._listeners:
                self._spare.give_up()

    async def _make_room(self, listener: _Listener, problem: OSError, *, waiting: bool) -> None:
        """Waits until a socket waits in the queue, since accept(2) tells of a want of files before that too. Then the
        spare file is given up, so that the next one is accepted and judged: whoever takes sockets makes room, or turns
        it away. Otherwise all would wait in the kernel's queue, unanswered."""
        if not waiting:
            await trio.lowlevel.wait_readable(listener.socket)
            return
        self._report(problem)
        if not self._spare.give_up():
            await trio.sleep(self._limits.accept_pause)

    def _hand_on(self, sock: AcceptedSocket, accepted: Callable[[AcceptedSocket], None]) -> None:
        if self._diverters:
            try:
                stream = sock.take()
            except BridgeError as problem:  # the peer reset it already: ENOTCONN
                _log.debug("an accepted socket was dead: %s", problem)
                return
            for diverter in self._diverters:
                if diverter.matches(stream.remote):
                    try:
                        diverter.channel.send_nowait(stream)
                    except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                        stream.abort()
                    return
        accepted(sock)

    def _report(self, problem: OSError) -> None:
        if trio.current_time() < self._report_again:
            return
        self._report_again = trio.current_time() + _REPORTED_EVERY
        what = f"cannot accept connections: {problem.strerror}; raise the limit of open files (ulimit -n)"
        _log.warning("%s", what)
        self._events.emit(ErrorEvent(code="ACCEPT", message=what))

    def addrs(self) -> tuple[Multiaddr, ...]:
        """The bound addresses, wildcards expanded to what the interfaces have now; loopback last."""
        found = [addr for listener in self._listeners for addr in self._expanded(listener)]
        return tuple(dict.fromkeys(sorted(found, key=_is_loopback)))

    @staticmethod
    def _expanded(listener: _Listener) -> tuple[Multiaddr, ...]:
        return tuple(tcp_addr(str(ip), listener.port) for ip in expand(listener.ip))

    def port(self, version: int) -> tuple[str, int] | None:
        """The (ip, port) bound for that IP version: a wildcard if there is one, else no loopback one if possible."""
        mine = sorted((x for x in self._listeners if x.ip.version == version), key=_preference)
        return (str(mine[0].ip), mine[0].port) if mine else None

    def source_for(self, ip: IP) -> tuple[str, int] | None:
        """The (ip, port) to dial `ip` from; None (any port) when no listener can send there."""
        for listener in sorted((x for x in self._listeners if x.ip.version == ip.version), key=_preference):
            bound, there = kind_of(listener.ip), kind_of(ip)
            if bound == "unspecified" or (bound == "loopback") == (there == "loopback"):
                return str(listener.ip), listener.port
        return None

    def is_own(self, endpoint: Endpoint) -> bool:
        """True when a numeric endpoint is one that we accept on."""
        if endpoint.proto != "tcp":
            return False
        ip = endpoint.ip
        mine = {x.ip for x in self._listeners if x.port == endpoint.port and x.ip.version == ip.version}
        return ip in mine or (any(kind_of(own) == "unspecified" for own in mine) and is_local(ip))

    @contextmanager
    def divert(self, matches: Callable[[Multiaddr], bool]) -> Iterator[trio.MemoryReceiveChannel[TcpStream]]:
        """While open, accepted sockets whose remote address matches go into the channel; the first diverter wins.

        At the end the channel closes and sockets left in it are cut. Raises LimitExceeded.
        """
        if len(self._diverters) >= self._limits.diverters:
            raise LimitExceeded(f"{self._limits.diverters} punches are in progress; try later")
        send, receive = trio.open_memory_channel[TcpStream](self._limits.diverted)
        diverter = _Diverter(matches, send)
        self._diverters.append(diverter)
        try:
            yield receive
        finally:
            self._diverters.remove(diverter)
            send.close()
            _drain(receive)

    def unlisten(self, addr: Multiaddr) -> None:
        """Stops accepting at a bound address; its socket is closed when the accept task has ended."""
        for listener in self._listeners:
            if addr in self._expanded(listener):
                listener.scope.cancel()

    def stop(self) -> None:
        """Stops accepting; the sockets are closed when the accept tasks have ended."""
        for listener in self._listeners:
            listener.scope.cancel()


def _drain(receive: trio.MemoryReceiveChannel[TcpStream]) -> None:
    while True:
        try:
            receive.receive_nowait().discard()  # half of a connection would hold its 4-tuple against the next dial
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            receive.close()
            return


def _preference(listener: _Listener) -> tuple[bool, bool]:
    kind = kind_of(listener.ip)
    return kind != "unspecified", kind == "loopback"


def _is_loopback(addr: Multiaddr) -> bool:
    endpoint = endpoint_of(addr)
    return endpoint is not None and endpoint.on_loopback


def _listenable(addr: Multiaddr) -> Endpoint:
    endpoint = spoken_endpoint(addr)
    if endpoint.kind not in ("ip4", "ip6") or is_relayed(addr) or peer_of(addr) is not None:
        raise AddressError(f"cannot listen on {addr}; an address to listen on looks like /ip4/0.0.0.0/tcp/4001")
    if kind_of(endpoint.ip) == "multicast":
        raise AddressError(f"cannot listen on {addr}: it is a multicast address")
    return endpoint
