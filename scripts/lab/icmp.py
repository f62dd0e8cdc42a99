"""ICMP echo on a raw socket: the lab does not count on a `ping` program. Knows no topology."""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time

_ECHO4, _REPLY4 = 8, 0
_ECHO6, _REPLY6 = 128, 129
_IPV4_HEADER = 20
_PACKET_BYTES = 2048


def raw_socket(ipv6: bool) -> socket.socket:
    """A raw ICMP socket in the calling thread's namespace. Raises PermissionError."""
    if ipv6:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(sock: socket.socket, address: str, timeout: float) -> float | None:
    """One echo on a socket of `raw_socket`. Returns the round trip in seconds, None when nothing came back."""
    ipv6 = sock.family == socket.AF_INET6
    ident, payload = secrets.randbits(16), secrets.token_bytes(16)
    body = struct.pack(">BBHHH", _ECHO6 if ipv6 else _ECHO4, 0, 0, ident, 1) + payload
    if not ipv6:
        body = body[:2] + struct.pack(">H", _checksum(body)) + body[4:]
    started = time.monotonic()
    try:
        sock.sendto(body, (address, 0))
    except OSError:  # no route yet: the same as no answer
        return None
    while (left := started + timeout - time.monotonic()) > 0:
        if not select.select([sock], [], [], left)[0]:
            return None
        packet = sock.recv(_PACKET_BYTES)
        reply = packet if ipv6 else packet[_IPV4_HEADER:]
        if reply[0] == (_REPLY6 if ipv6 else _REPLY4) and reply[8:24] == payload:
            return time.monotonic() - started
    return None
