"""Addresses of other nodes as the Kaspa wire gives them: IP and port, checked, bounded, oldest out first.

Holds them in memory only and dials nothing; `punchbridge_node.peerstore` keeps them on disk. Addresses of peers
reached through the bridge are synthetic and do not belong here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from punchbridge.iana import kind_of, unmapped
from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed, wire


@dataclass(frozen=True, order=True)
class NetworkAddress:
    """An IP address in text form and a TCP port."""

    ip: str
    port: int

    @staticmethod
    def parse(ip: str, port: int) -> NetworkAddress:
        """Raises ValueError when either is out of range. An IPv4-mapped IPv6 address becomes IPv4."""
        address = unmapped(ipaddress.ip_address(ip))
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"port out of range: {port}")
        return NetworkAddress(str(address), port)

    @staticmethod
    def from_wire(item: pb.NetAddress) -> NetworkAddress:
        """Raises MalformedMessage for an IP that is not 4 or 16 bytes, or a port above 65535."""
        if len(item.ip) not in (4, 16):
            raise wire.MalformedMessage(f"IP address of {len(item.ip)} bytes, want 4 or 16")
        if item.port > 0xFFFF:
            raise wire.MalformedMessage(f"port out of range: {item.port}")
        return NetworkAddress.parse(str(ipaddress.ip_address(item.ip)), item.port)

    def to_wire(self) -> pb.NetAddress:
        """As sent: timestamp 0, IP big-endian."""
        return pb.NetAddress(ip=ipaddress.ip_address(self.ip).packed, port=self.port)

    @property
    def dialable(self) -> bool:
        """Whether every other host could reach it: a public address (see `punchbridge.iana`) and not port 0.

        A private or broadcast address means another host to whoever hears of it, or none; passing it on would aim
        other nodes at their own networks.
        """
        return self.port != 0 and kind_of(ipaddress.ip_address(self.ip)) == "public"


class AddressBook:
    """At most `capacity` dialable addresses; a known one moves to the young end."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: dict[NetworkAddress, None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, addresses: Iterable[NetworkAddress]) -> list[NetworkAddress]:
        """Remember those that can be dialled; returns the ones that were unknown."""
        fresh = []
        for item in addresses:
            if not item.dialable:
                continue
            if item in self._items:
                del self._items[item]
            else:
                fresh.append(item)
            self._items[item] = None
            if len(self._items) > self._capacity:
                del self._items[next(iter(self._items))]
        return fresh

    def newest(self, count: int = fixed.MAX_ADDRESSES_SENT) -> list[NetworkAddress]:
        """Up to `count` addresses, the youngest first."""
        return [item for item, _ in zip(reversed(self._items), range(count), strict=False)]
