"""What the swarm asks of a transport other than TCP: the circuit transport, later QUIC. Declarations only."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from punchbridge.addresses import Multiaddr
from punchbridge.identity import PeerId
from punchbridge.transport.link import Link

__all__ = ["Reservation", "ReservingTransport", "Transport"]


class Transport(Protocol):
    """Makes links, before security. The swarm upgrades them, with its own deadline around every call."""

    def handles(self, addr: Multiaddr) -> bool:
        """True when `dial` and `listen` understand the address."""

    async def dial(self, addr: Multiaddr) -> Link:
        """Opens a byte stream to the address. Raises BridgeError; a cancelled call leaves nothing open."""

    async def listen(self, addr: Multiaddr) -> tuple[Multiaddr, ...]:
        """Makes us reachable through the address; returns once that is so, with the addresses to announce."""


class Reservation(Protocol):
    """A slot at a relay."""

    @property
    def relay(self) -> PeerId:
        """Who granted it."""

    @property
    def addrs(self) -> tuple[Multiaddr, ...]:
        """Our circuit addresses through that relay."""

    @property
    def expires(self) -> int:
        """UTC seconds."""


@runtime_checkable
class ReservingTransport(Transport, Protocol):
    """A transport whose listening is a reservation."""

    async def reserve(self, relay: Multiaddr) -> Reservation:
        """Returns once the relay accepted. Raises RelayRefused and as `dial`."""
