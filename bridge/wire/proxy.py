"""The header of the PROXY protocol, version 2: who is behind a connection, told to the server that accepts it.

haproxy, doc/proxy-protocol.txt. Only what a sender needs: one TCP connection over IPv6, and values of any type behind
the addresses. It knows no peer and opens nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

__all__ = ["PP2_TYPE_PEER_ID", "encode_proxy_header"]

PP2_TYPE_PEER_ID: Final = 0xE7
"""Ours, from the range that the protocol leaves to applications (0xE0 to 0xEF): a libp2p peer id as base58 text.
Clouds use 0xE0, 0xEA and 0xEE there."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY: Final = 0x21
"""Version 2, command PROXY."""

_TCP_OVER_IPV6: Final = 0x21


def encode_proxy_header(
    source: tuple[str, int], destination: tuple[str, int], values: Iterable[tuple[int, bytes]] = ()
) -> bytes:
    """The bytes that go before everything else. source, destination: IPv6 address and port; values: type and value.

    Raises ValueError for an address that is none, and when the whole does not fit.
    """
    found = list(values)
    if any(len(value) > 0xFFFF for _, value in found):
        raise ValueError("a value of a PROXY header has at most 65535 bytes")
    told = b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in found)
    addresses = IPv6Address(source[0]).packed + IPv6Address(destination[0]).packed
    rest = addresses + struct.pack("!HH", source[1], destination[1]) + told
    if len(rest) > 0xFFFF:
        raise ValueError(f"a PROXY header of {len(rest)} bytes")
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _TCP_OVER_IPV6, len(rest)) + rest
