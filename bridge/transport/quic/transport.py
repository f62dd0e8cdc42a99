"""QUIC as a transport: connections from the listening UDP port and to it, with TLS and streams of their own.

It knows sockets, ports and handshakes under way, and no table of connections. Names are resolved before they come here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Final

import punchbridge_quic as quic
import trio

from punchbridge.addresses import Endpoint, Multiaddr, addr_of, endpoint_of, is_relayed, peer_of
from punchbridge.config import MuxedLimits, QuicLimits
from punchbridge.errors import AddressError, LimitExceeded, Unreachable
from punchbridge.iana import IP, kind_of
from punchbridge.identity import Identity, PeerId
from punchbridge.tasks.fair import FairQueue
from punchbridge.tasks.memory import Memory
from punchbridge.tasks.prefixes import network, source
from punchbridge.transport.base import Accept, Connection
from punchbridge.transport.interfaces import expand, is_local
from punchbridge.transport.quic.connection import QuicConnection, Shaken
from punchbridge.transport.quic.endpoint import Line, Stray, UdpEndpoint
from punchbridge.transport.quic.handshake import Handshake
from punchbridge.transport.quic.reasons import handshake_error
from punchbridge.transport.quic.sockets import UdpSocket
from punchbridge.wire.tls_credentials import make_credentials

__all__ = ["QuicTransport"]

_ANY: Final = {4: "0.0.0.0", 6: "::"}


@dataclass(eq=False)
class _Place:
    """A bound socket. `accept` takes newcomers over; None where we only dial from."""

    endpoint: UdpEndpoint
    accept: Accept | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def ip(self) -> IP:
        return self.endpoint.socket.ip

    @property
    def port(self) -> int:
        return self.endpoint.socket.port


class _Arriving:
    """A newcomer whose first datagram has come; see `base.Incoming`."""

    room: int | None = None
    """It needs no file."""

    def __init__(self, transport: QuicTransport, place: UdpEndpoint, attempt: quic.Attempt) -> None:
        self._transport, self._place = transport, place
        self._attempt, self.host, self._port, self._proven = attempt
        self._line: Line | None = None
        self._handshake: Handshake | None = None
        self._decided = False

    @property
    def silent(self) -> bool:
        """Whether it may be nobody: the source of a first datagram can be anybody's address."""
        return not self._proven and (self._handshake is None or not self._handshake.connected)

    async def secure(self) -> Connection:
        """See `base.Incoming`."""
        if self._decided:
            raise Unreachable(f"the handshake with {self.host} was given up")
        self._decided = True
        return await self._transport.finish_inbound(self, self._place, self._attempt, self.host, self._port)

    def begun(self, line: Line, handshake: Handshake) -> None:
        """The engine goes on with it."""
        self._line, self._handshake = line, handshake

    def abort(self) -> None:
        """See `base.Incoming`."""
        if not self._decided:
            self._decided = True
            self._place.engine.refuse(self._attempt)
            self._place.send_replies()
        elif self._handshake is not None:
            self._handshake.broken("TURNED_AWAY")


class QuicTransport:
    """See `base.ServingTransport`. Dials leave from the listening port where there is one."""

    nursery: trio.Nursery

    def __init__(
        self,
        identity: Identity,
        changed: Callable[[], None] = lambda: None,
        limits: QuicLimits = QuicLimits(),
        muxed: MuxedLimits = MuxedLimits(),
        memory: Memory | None = None,
        crowded: Callable[[str], bool] = lambda _host: False,
        moved: Callable[[Connection, Multiaddr], None] = lambda _connection, _before: None,
        turns: FairQueue[str] | None = None,
        dropped: Callable[[str], None] = lambda _host: None,
    ) -> None:
        """`changed` is called when the bound addresses have changed; `memory`, `turns`: what all connections share, and
        whoever gives `turns` runs them; `crowded`: whether a newcomer from an IP has to show first that it receives
        there; `moved`: see `QuicConnection`; `dropped`: see `UdpEndpoint`."""
        self._identity = identity
        self._changed = changed
        self._crowded, self._moved, self._dropped = crowded, moved, dropped
        self._limits, self._muxed = limits, muxed
        self._memory, self._turns = Memory() if memory is None else memory, turns
        self._shown = make_credentials(identity, datetime.now(UTC))
        self._places: list[_Place] = []
        self._opening = trio.Lock()
        self._under_way = 0

    # --- dialling -------------------------------------------------------------------------------------------

    def handles(self, addr: Multiaddr) -> bool:
        """An IP and a UDP port with /quic-v1; names are resolved before they come here."""
        endpoint = None if is_relayed(addr) else endpoint_of(addr)
        return endpoint is not None and endpoint.proto == "udp" and endpoint.kind in ("ip4", "ip6")

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        """Connects to a numeric address, from the listening port if that can be.

        Raises Unreachable, DialTimeout, AddressError (our own listening address), AuthenticationFailed, WrongPeer,
        NegotiationFailed, ProtocolViolation or ConnectionLost. Nothing is left of a failed or cancelled call.
        """
        endpoint = _numeric(addr)
        if self._is_own(endpoint):
            raise AddressError(f"{addr} is our own listening address; dial another peer")
        place = await self._dialling_place(endpoint.ip)
        handshake = Handshake(str(addr_of(endpoint)), self._limits.handshake_timeout)
        try:
            line = place.endpoint.connect(endpoint.host, endpoint.port, handshake)
        except quic.CannotConnect as problem:
            raise Unreachable(f"{addr}: {problem}") from None
        peer = await handshake.finish(line, self._identity.peer_id, expected)
        return self._connection(line, peer, endpoint, inbound=False)

    async def _dialling_place(self, ip: IP) -> _Place:
        """A listening socket that can send there, else one that is bound for dialling and kept."""
        async with self._opening:  # several dials at once share the one that the first of them binds
            found = self._place_for(ip)
            return found or await self._open(Endpoint(f"ip{ip.version}", _ANY[ip.version], 0, "udp"), None)

    def _place_for(self, ip: IP) -> _Place | None:
        for place in sorted((one for one in self._places if one.ip.version == ip.version), key=_preference):
            bound, there = kind_of(place.ip), kind_of(ip)
            if bound == "unspecified" or (bound == "loopback") == (there == "loopback"):
                return place
        return None

    def _connection(self, line: Line, peer: PeerId, remote: Endpoint, *, inbound: bool) -> Connection:
        bound = line.endpoint.socket
        host = line.local or str(bound.ip)
        local = addr_of(Endpoint(f"ip{bound.ip.version}", host, bound.port, "udp"))
        shaken = Shaken(line, peer, "responder" if inbound else "initiator", local, addr_of(remote), inbound)
        origin = network(source(remote.host))
        account = self._memory.account(origin)
        turn = trio.lowlevel.checkpoint if self._turns is None else partial(self._turns.turn, origin)
        return QuicConnection(
            shaken, limits=self._limits, muxed=self._muxed, account=account, moved=self._moved, turn=turn
        )

    # --- listening ------------------------------------------------------------------------------------------

    async def listen(self, addr: Multiaddr, accept: Accept) -> tuple[Multiaddr, ...]:
        """Binds an IP and UDP port (0 = any; 0.0.0.0 and :: = every interface) and starts to accept.

        Returns the bound addresses. Raises AddressError, PortInUse, LimitExceeded.
        """
        endpoint = _listenable(addr)
        if len(self._places) >= self._limits.sockets:
            raise LimitExceeded(f"at most {self._limits.sockets} listening addresses; name fewer")
        place = await self._open(endpoint, accept)
        self._changed()
        return _expanded(place)

    async def _open(self, endpoint: Endpoint, accept: Accept | None) -> _Place:
        engine, socket = self._engine(), UdpSocket(endpoint, self._limits.buffers)
        place = _Place(UdpEndpoint(socket, engine, self._limits, self._attempted, self._dropped), accept)
        self._places.append(place)
        try:
            await self.nursery.start(self._run, place)
        except BaseException:
            socket.close()
            raise
        return place

    async def _run(self, place: _Place, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC128 - below
        try:
            with place.scope:
                await place.endpoint.run(task_status=task_status)
        finally:
            self._places.remove(place)
            if place.accept is not None:
                self._changed()

    def _engine(self) -> quic.Engine:
        limits = self._limits
        settings = quic.Settings(
            streams=limits.streams,
            first_streams=limits.streams_first,
            stream_window=limits.stream_window,
            window=limits.window_first,
            unsent=limits.unsent,
            idle=limits.idle,
            keepalive=limits.keepalive,
            first_mtu=limits.first_mtu,
            largest_mtu=limits.largest_mtu,
            congestion=limits.congestion,
            first_window=0,
            largest_window=limits.in_flight,
            acknowledge_every=0,
            handshake_bytes=_HANDSHAKE_BYTES,
            attempts=limits.attempts,
            attempt_bytes=limits.attempt_bytes,
            reset_pause=_RESET_PAUSE,
            retry_lifetime=limits.handshake_timeout,
            first_round_trip=limits.first_round_trip,
        )
        # The same in each run of this identity, and known to nobody else.
        reset_key = hashlib.blake2b(
            self._identity.private_key.serialize(), digest_size=32, person=b"quic reset"
        ).digest()
        return quic.Engine(self._shown.certificate, self._shown.key, settings, secrets.token_bytes(32), reset_key)

    def _attempted(self, endpoint: UdpEndpoint, attempt: quic.Attempt) -> None:
        """Decides on a newcomer: a Retry when places are short, else whoever listens takes it over."""
        place = next((one for one in self._places if one.endpoint is endpoint), None)
        if place is None or place.accept is None:
            endpoint.engine.ignore(attempt[0])
        elif not attempt[3] and (self._crowded(attempt[1]) or self._under_way >= self._limits.retry_above):
            endpoint.engine.retry(attempt[0])
        else:
            place.accept(_Arriving(self, endpoint, attempt))

    async def finish_inbound(
        self, arriving: _Arriving, endpoint: UdpEndpoint, attempt: int, host: str, port: int
    ) -> Connection:
        """The connection of a newcomer. Raises as `dial`."""
        remote = Endpoint(f"ip{ip_address(host).version}", host, port, "udp")
        handshake = Handshake(str(addr_of(remote)), self._limits.handshake_timeout)
        self._under_way += 1
        try:
            line = endpoint.adopt(_accepted(endpoint, attempt, remote), handshake)
            arriving.begun(line, handshake)
            peer = await handshake.finish(line, self._identity.peer_id, None)
            return self._connection(line, peer, remote, inbound=True)
        finally:
            self._under_way -= 1

    def addrs(self) -> tuple[Multiaddr, ...]:
        """See `base.ServingTransport`."""
        found = [addr for place in self._listening() for addr in _expanded(place)]
        return tuple(dict.fromkeys(sorted(found, key=_is_loopback)))

    def port(self, version: int) -> tuple[str, int] | None:
        """See `base.ServingTransport`."""
        mine = sorted((one for one in self._listening() if one.ip.version == version), key=_preference)
        return (str(mine[0].ip), mine[0].port) if mine else None

    def unlisten(self, addr: Multiaddr) -> None:
        """See `base.ServingTransport`. The connections over that socket end with it."""
        for place in self._listening():
            if addr in _expanded(place):
                place.scope.cancel()

    def stop(self) -> None:
        """Accepts no more. Connections go on until the nursery ends."""
        for place in self._listening():
            place.accept = None

    def send_stray(self, data: bytes, to: Endpoint) -> bool:
        """See `UdpEndpoint.send_stray`, from the socket that a dial would leave from; False when there is none."""
        place = self._place_for(to.ip)
        if place is None or place.accept is None:
            return False
        place.endpoint.send_stray(data, to.host, to.port)
        return True

    def divert(
        self, version: int, matches: Callable[[str, int], bool]
    ) -> AbstractContextManager[trio.MemoryReceiveChannel[Stray]]:
        """See `UdpEndpoint.divert`, of the socket that dials of that IP version leave from. Raises LimitExceeded, also
        when there is none."""
        place = next((one for one in sorted(self._places, key=_preference) if one.ip.version == version), None)
        if place is None:
            raise LimitExceeded(f"no UDP port is bound for IPv{version}")
        return place.endpoint.divert(matches)

    def _listening(self) -> list[_Place]:
        return [one for one in self._places if one.accept is not None]

    def _is_own(self, endpoint: Endpoint) -> bool:
        ip = endpoint.ip
        mine = {one.ip for one in self._places if one.port == endpoint.port and one.ip.version == ip.version}
        return ip in mine or (any(kind_of(own) == "unspecified" for own in mine) and is_local(ip))


_HANDSHAKE_BYTES: Final = 16 * 1024
"""What RFC 9000 section 7.5 asks for at least is 4096; a certificate has 8192 at most."""

_RESET_PAUSE: Final = 0.02
"""Seconds between two stateless resets of one socket: fifty a second are no burden, and no amplifier."""


def _accepted(endpoint: UdpEndpoint, attempt: int, remote: Endpoint) -> int:
    """The engine's number of a newcomer's connection. Raises what its first datagram is to the rooms above."""
    try:
        return endpoint.engine.accept(attempt, trio.current_time())
    except quic.HandshakeFailed as problem:
        endpoint.send_replies()
        cause, code, reason = problem.args
        raise handshake_error(str(addr_of(remote)), cause, code, bytes(reason), 0) from None


def _numeric(addr: Multiaddr) -> Endpoint:
    endpoint = None if is_relayed(addr) else endpoint_of(addr)
    if endpoint is None or endpoint.proto != "udp" or endpoint.kind not in ("ip4", "ip6"):
        raise AddressError(f"{addr} is not an IP, UDP and QUIC address, such as /ip4/192.0.2.1/udp/4001/quic-v1")
    return endpoint


def _listenable(addr: Multiaddr) -> Endpoint:
    endpoint = _numeric(addr)
    if peer_of(addr) is not None:
        raise AddressError(f"cannot listen on {addr}; an address to listen on looks like /ip4/0.0.0.0/udp/4001/quic-v1")
    if kind_of(endpoint.ip) == "multicast":
        raise AddressError(f"cannot listen on {addr}: it is a multicast address")
    return endpoint


def _expanded(place: _Place) -> tuple[Multiaddr, ...]:
    return tuple(addr_of(Endpoint(f"ip{ip.version}", str(ip), place.port, "udp")) for ip in expand(place.ip))


def _preference(place: _Place) -> tuple[bool, bool, bool]:
    kind = kind_of(place.ip)
    return place.accept is None, kind != "unspecified", kind == "loopback"


def _is_loopback(addr: Multiaddr) -> bool:
    endpoint = endpoint_of(addr)
    return endpoint is not None and endpoint.on_loopback
