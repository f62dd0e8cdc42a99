"""One connect() from the listening port that outlives whoever waits for it, and what is kept of them between attempts.

A SYN that is in the air must keep its socket: the NAT's mapping lives on without it, the peer's SYN then comes through
to our listener, whose SYN-ACK has another sequence number than the dial had; connection tracking drops it, and the
half-open entry holds the 4-tuple against the next dial (EADDRNOTAVAIL). So a dial is not closed when an attempt ends
but handed to the next one. Knows no peer, and nothing above TCP.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Set
from dataclasses import dataclass

import trio

from punchbridge.addresses import Endpoint
from punchbridge.config import TcpLimits
from punchbridge.transport.tcp.sockets import TcpStream, bound_socket

__all__ = ["Dial", "KeptDials", "TupleTaken"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ESTABLISHED, _SYN_RECV = 1, 3  # tcpi_state, the first byte of TCP_INFO (netinet/tcp.h)


class TupleTaken(OSError):
    """The kernel holds a connection with this 4-tuple already: one that our listener accepted, or half of one."""


class Dial:
    """An outstanding connection request. Owns its socket until `wait` returns the stream or raises OSError."""

    def __init__(self, endpoint: Endpoint, source: tuple[str, int] | None, limits: TcpLimits = TcpLimits()) -> None:
        """Sends the SYN. Raises OSError when the request could not leave, TupleTaken when that was the reason."""
        self.endpoint = endpoint
        self.source = source
        self._limits = limits
        family = socket.AF_INET if endpoint.kind == "ip4" else socket.AF_INET6
        bound = bound_socket(family, *(source or (("0.0.0.0", "::")[endpoint.kind == "ip6"], 0)))
        self._socket = socket.socket(fileno=bound.detach())
        try:
            self._socket.setblocking(False)
            # Also when closed half-open (both SYNs have met): a FIN would hold the 4-tuple for minutes.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            code = self._socket.connect_ex((endpoint.host, endpoint.port))
            if code not in (0, errno.EINPROGRESS):
                taken = code == errno.EADDRNOTAVAIL and _reachable(family, endpoint)
                raise (TupleTaken if taken else OSError)(code, os.strerror(code))
        except OSError:
            self._socket.close()
            raise

    @property
    def stands(self) -> bool:
        """Connected, though nobody may have waited for it."""
        return self._state() == _ESTABLISHED

    @property
    def half_open(self) -> bool:
        """The peer's SYN is here and our answer to it is not acknowledged yet."""
        return self._state() == _SYN_RECV

    @property
    def closed(self) -> bool:
        """The request was given up, or `wait` has ended in an error."""
        return self._socket.fileno() == -1

    def _state(self) -> int:
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    async def wait(self) -> TcpStream:
        """The connection. Raises OSError with the reason of the refusal; cancelled, the dial stays outstanding."""
        await trio.lowlevel.wait_writable(self._socket)
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.close()
            raise OSError(code, os.strerror(code))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        try:
            return TcpStream(trio.socket.from_stdlib_socket(self._socket), self._limits)
        except trio.BrokenResourceError as problem:  # reset since
            raise OSError(errno.ECONNRESET, str(problem)) from None

    def close(self) -> None:
        """Gives the request up; what stands already is reset. Safe to call twice."""
        self._socket.close()


def _reachable(family: int, endpoint: Endpoint) -> bool:
    """Whether we have a route and an address for it: EADDRNOTAVAIL also means that there is none (IPv6)."""
    with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((endpoint.host, endpoint.port))  # UDP: a look at the routes, nothing is sent
        except OSError:
            return False
    return True


@dataclass
class _Kept:
    dial: Dial
    half_open: bool
    plain: bool
    old: bool = False


class KeptDials:
    """Dials in the air between two attempts, one for each endpoint."""

    def __init__(self) -> None:
        self._dials: dict[Endpoint, _Kept] = {}

    def __bool__(self) -> bool:
        return bool(self._dials)

    def __iter__(self) -> Iterator[Dial]:
        return iter([kept.dial for kept in self._dials.values()])

    def age(self) -> None:
        """The next attempt is a while away. A dial stays open until then. When the time of another dial has come and
        the peer's SYN has not met the old one by then, the new one leaves in its stead: the kernel's next SYN for the
        old one may be a minute away."""
        for kept in self._dials.values():
            kept.old = True

    def keep(self, dial: Dial, *, plain: bool = False) -> None:
        """Takes a dial over, in the place of an earlier one to the same endpoint. `plain`: of no punch so far."""
        self.drop(dial.endpoint)
        self._dials[dial.endpoint] = _Kept(dial, dial.half_open, plain)

    def restrict(self, endpoints: Set[Endpoint]) -> None:
        """For a punch at these endpoints, when its peer waits for it: closes the dials to others, and those plain
        ones that stand: their acceptor may have taken them for a plain dial, whose roles are the other way round."""
        for endpoint, kept in tuple(self._dials.items()):
            if endpoint not in endpoints or (kept.plain and kept.dial.stands):
                self._dials.pop(endpoint).dial.close()
            elif kept.old:
                kept.half_open = kept.dial.half_open  # the peer has not dialled yet: what came so far was in vain
            kept.plain = False

    def take(self, endpoint: Endpoint, source: tuple[str, int] | None) -> Dial | None:
        """The dial to this endpoint, unless it left from elsewhere, was half-open all the time, or is old and unmet.

        Half-open for longer than a round trip means that the peer has closed its own dial, and that the reset it
        should have answered with was dropped by a NAT.
        """
        kept = self._dials.pop(endpoint, None)
        if kept is None:
            return None
        in_vain = kept.half_open and kept.dial.half_open
        unmet = kept.old and not (kept.dial.half_open or kept.dial.stands)
        if kept.dial.source != source or in_vain or unmet:
            kept.dial.close()
            return None
        return kept.dial

    def drop(self, endpoint: Endpoint) -> None:
        """Closes the dial to this endpoint: another one is to leave."""
        kept = self._dials.pop(endpoint, None)
        if kept is not None:
            kept.dial.close()

    def close(self) -> None:
        """Closes them all."""
        self.restrict(frozenset())
