"""What a transport hands over to the swarm: a byte stream, before security, and how it came to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from punchbridge.addresses import Multiaddr
from punchbridge.identity import PeerId
from punchbridge.transport.raw import RawStream
from punchbridge.wire.circuit import CircuitLimit

__all__ = ["CircuitLimit", "Link"]


@dataclass(frozen=True)
class Link:
    """A byte stream and its path. `inbound` says who asked for it, not who plays initiator.

    Addresses of a circuit: local `<relay>/p2p-circuit`, remote `<relay>/p2p/R/p2p-circuit/p2p/T`; `attested` is the
    address at which a relay that our user named saw the peer.
    """

    raw: RawStream
    local: Multiaddr
    remote: Multiaddr
    path: Literal["direct", "relay"]
    inbound: bool
    relay: PeerId | None = None
    limit: CircuitLimit | None = None
    attested: Multiaddr | None = None
    punched: bool = False

    @property
    def transport(self) -> Literal["tcp", "circuit"]:
        """What carries the bytes."""
        return "tcp" if self.path == "direct" else "circuit"
