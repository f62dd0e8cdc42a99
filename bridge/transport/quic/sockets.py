"""A UDP socket as QUIC needs it: several datagrams in one call, ECN, our own address, and no fragments.

It knows Linux's control messages and nothing of what the datagrams hold.
"""

from __future__ import annotations

import errno
import logging
import socket as stdlib
import struct
from ipaddress import ip_address
from typing import Final, NamedTuple

from punchbridge.addresses import Endpoint, addr_of
from punchbridge.errors import AddressError, PortInUse
from punchbridge.iana import IP, kind_of

__all__ = ["MOST", "Datagrams", "Packet", "UdpSocket"]

_log = logging.getLogger(__name__)

MOST: Final = 65535
"""Bytes of one read: what one datagram, or several in one, can have."""

SEGMENTS: Final = 64
"""Datagrams of one send (UDP_MAX_SEGMENTS of Linux)."""

# linux/udp.h and linux/in.h; Python 3.11 names few of them.
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_PKTINFO, _IP_RECVTOS, _IP_MTU_DISCOVER, _PMTUDISC_PROBE = 8, 13, 10, 3
_IPV6_MTU_DISCOVER, _IPV6_PMTUDISC_PROBE = 23, 3
_V4, _V6 = stdlib.IPPROTO_IP, stdlib.IPPROTO_IPV6
_PKTINFO, _PKTINFO6 = struct.Struct("=I4s4s"), struct.Struct("=16sI")
_INT, _SHORT = struct.Struct("=i"), struct.Struct("=H")
_ECN: Final = 0x03

_ANCILLARY: Final = stdlib.CMSG_SPACE(4) * 2 + stdlib.CMSG_SPACE(20)
"""The size of a segment, the ECN bits, and our address."""

_CLOSED: Final = frozenset({errno.EBADF, errno.ENOTSOCK})
"""What fails because the socket is gone. Whatever else sending fails with (a probe larger than the path takes, no
route, a filter of this machine, a broadcast address), the datagram counts as lost, as it could be anywhere."""

_NO_SEGMENTS: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
"""What sending several at once fails with where the interface cannot take them apart."""

Packet = tuple[bytes, int, str, int, str | None, int]
"""See the engine: bytes, size of a segment, host, port, from which of our addresses, ECN bits."""


class Datagrams(NamedTuple):
    """What one read brought: datagrams of `segment` bytes each, or one when that is 0. `local`: at which of our
    addresses."""

    data: bytes
    segment: int
    host: str
    port: int
    local: str | None
    ecn: int


class UdpSocket:
    """A bound socket that does not block. `ip` and `port` are what it is bound to."""

    def __init__(self, endpoint: Endpoint, buffers: int) -> None:
        """Binds to a numeric endpoint; port 0 picks one. Raises PortInUse, AddressError."""
        v6 = endpoint.ip.version == 6
        self.raw = stdlib.socket(stdlib.AF_INET6 if v6 else stdlib.AF_INET, stdlib.SOCK_DGRAM)
        try:
            self._set_options(v6, buffers)
            self.raw.bind((endpoint.host, endpoint.port))
        except OSError as problem:
            self.raw.close()
            raise _bind_error(endpoint, problem) from None
        except BaseException:
            self.raw.close()
            raise
        name = self.raw.getsockname()
        self.ip: IP = ip_address(name[0].partition("%")[0])
        self.port = int(name[1])
        self.segments = SEGMENTS
        """How many datagrams `send` takes at once."""
        self._v6 = v6
        # An answer has to leave from the address that was asked; the kernel knows which where there is one alone.
        self._names_source = kind_of(self.ip) == "unspecified"

    def _set_options(self, v6: bool, buffers: int) -> None:
        sock = self.raw
        sock.setblocking(False)
        for option in (stdlib.SO_RCVBUF, stdlib.SO_SNDBUF):
            sock.setsockopt(stdlib.SOL_SOCKET, option, buffers)
        if v6:
            sock.setsockopt(_V6, stdlib.IPV6_V6ONLY, 1)
            sock.setsockopt(_V6, stdlib.IPV6_RECVPKTINFO, 1)
            sock.setsockopt(_V6, stdlib.IPV6_RECVTCLASS, 1)
            sock.setsockopt(_V6, _IPV6_MTU_DISCOVER, _IPV6_PMTUDISC_PROBE)
        else:
            sock.setsockopt(_V4, _IP_PKTINFO, 1)
            sock.setsockopt(_V4, _IP_RECVTOS, 1)
            # No fragments, and no belief in what ICMP says of the path: the engine finds out by probes.
            sock.setsockopt(_V4, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        try:
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:  # Linux before 5.0: a read brings one datagram
            _log.debug("this kernel has no UDP_GRO")

    def close(self) -> None:
        """Repeated calls do nothing."""
        self.raw.close()

    def receive(self) -> Datagrams | None:
        """One read; None when there is nothing. Raises OSError when the socket is closed."""
        try:
            data, ancillary, _, name = self.raw.recvmsg(MOST, _ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as problem:  # such as ENOMEM: the datagram is lost
            self._failed(problem)
            return None
        segment, ecn, local = 0, 0, None
        for level, kind, value in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment = _INT.unpack_from(value)[0]
            elif level == _V4 and kind == stdlib.IP_TOS:
                ecn = value[0] & _ECN
            elif level == _V6 and kind == stdlib.IPV6_TCLASS:
                ecn = _INT.unpack_from(value)[0] & _ECN
            elif level == _V4 and kind == _IP_PKTINFO:
                local = stdlib.inet_ntop(stdlib.AF_INET, _PKTINFO.unpack_from(value)[2])
            elif level == _V6 and kind == stdlib.IPV6_PKTINFO:
                local = stdlib.inet_ntop(stdlib.AF_INET6, _PKTINFO6.unpack_from(value)[0])
        return Datagrams(data, segment, name[0].partition("%")[0], name[1], local, ecn)

    def send(self, packet: Packet) -> bool:
        """Sends datagrams, or loses them as a network may; False when the socket takes none now."""
        data, segment, host, port, source, ecn = packet
        ancillary = self._headers(source, ecn)
        if not segment or segment >= len(data):
            return self._send_one(data, ancillary, (host, port))
        if self.segments > 1:
            try:
                self.raw.sendmsg((data,), (*ancillary, (_SOL_UDP, _UDP_SEGMENT, _SHORT.pack(segment))), 0, (host, port))
                return True
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as problem:
                if problem.errno not in _NO_SEGMENTS:
                    return self._failed(problem)
                _log.debug("datagrams are sent one by one: %s", problem)
                self.segments = 1
        for start in range(0, len(data), segment):
            if not self._send_one(data[start : start + segment], ancillary, (host, port)):
                return True  # the rest is lost: a buffer that is sent again would repeat what has left
        return True

    def _send_one(self, data: bytes, ancillary: list[tuple[int, int, bytes]], to: tuple[str, int]) -> bool:
        try:
            self.raw.sendmsg((data,), ancillary, 0, to)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as problem:
            return self._failed(problem)
        return True

    @staticmethod
    def _failed(problem: OSError) -> bool:
        if problem.errno in _CLOSED:
            raise problem
        return True

    def _headers(self, source: str | None, ecn: int) -> list[tuple[int, int, bytes]]:
        headers: list[tuple[int, int, bytes]] = []
        if ecn:
            headers.append(
                (_V6, stdlib.IPV6_TCLASS, _INT.pack(ecn)) if self._v6 else (_V4, stdlib.IP_TOS, _INT.pack(ecn))
            )
        if source is not None and self._names_source:
            if self._v6:
                packed = stdlib.inet_pton(stdlib.AF_INET6, source)
                headers.append((_V6, stdlib.IPV6_PKTINFO, _PKTINFO6.pack(packed, 0)))
            else:
                packed = stdlib.inet_pton(stdlib.AF_INET, source)
                headers.append((_V4, _IP_PKTINFO, _PKTINFO.pack(0, packed, bytes(4))))
        return headers


def _bind_error(endpoint: Endpoint, problem: OSError) -> PortInUse | AddressError:
    addr = addr_of(endpoint)
    if problem.errno == errno.EADDRINUSE:
        return PortInUse(
            f"{addr}: another program holds this UDP port; stop it, choose another port, or do without QUIC (--no-quic)"
        )
    denied = problem.errno in (errno.EACCES, errno.EPERM)
    advice = "this user may bind higher ports only, above 1023" if denied else "use an address of this machine"
    return AddressError(f"cannot listen on {addr}: {problem.strerror}; {advice}")
