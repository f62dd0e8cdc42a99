"""Reads PROXY headers of version 2 by haproxy's doc/proxy-protocol.txt, as a server does: nothing of ours is used."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    source: tuple[str, int]
    destination: tuple[str, int]
    values: dict[int, bytes]
    rest: bytes
    """What came behind the header."""


def read_proxy_header(data: bytes) -> Told | None:
    """None while it is not whole. Raises ValueError for a header that section 2.2 forbids."""
    if not b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a".startswith(data[:12]):
        raise ValueError("no signature")
    if len(data) < 16:
        return None
    version, family, length = struct.unpack("!BBH", data[12:16])
    if version >> 4 != 2 or version & 15 != 1:
        raise ValueError(f"version and command {version:#x}")
    if family != 0x21:
        raise ValueError(f"family and protocol {family:#x}, not TCP over IPv6")
    if len(data) < 16 + length:
        return None
    body, rest = data[16 : 16 + length], data[16 + length :]
    source, destination, source_port, destination_port = struct.unpack("!16s16sHH", body[:36])
    values: dict[int, bytes] = {}
    body = body[36:]
    while body:
        kind, size = struct.unpack("!BH", body[:3])
        if len(body) < 3 + size or kind in values:
            raise ValueError("a value reaches beyond the header, or stands there twice")
        values[kind] = body[3 : 3 + size]
        body = body[3 + size :]
    return Told(
        (str(ipaddress.ip_address(source)), source_port),
        (str(ipaddress.ip_address(destination)), destination_port),
        values,
        rest,
    )
