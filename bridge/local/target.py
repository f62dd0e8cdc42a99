"""What a channel is opened to: a peer id, with or without an address, and which path it may take.

Reads text, asks protocol codes, and knows nothing of connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast, get_args

from punchbridge.access.secret import Secret
from punchbridge.access.ticket import DEFAULT_SERVICE, is_ticket, parse_ticket
from punchbridge.addresses import Multiaddr, is_relayed, parse, peer_of, spoken_endpoint
from punchbridge.errors import AddressError, ConfigError, TicketError
from punchbridge.identity import PeerId, parse_peer_id, peer_text
from punchbridge.reach.path import PathPolicy
from punchbridge.sessions.frames import MAX_SERVICE

__all__ = ["GRPC_PROTOCOL", "PathPolicy", "Target", "check_policy", "check_protocol", "parse_target"]

GRPC_PROTOCOL = "/punchbridge/grpc/1.0.0"
"""The stream protocol that carries one HTTP/2 connection of gRPC, its preface first, with nothing before it."""


@dataclass(frozen=True)
class Target:
    """A peer, the address to dial when it is not connected, further ones, and the secret of an invitation."""

    peer: PeerId
    addr: Multiaddr | None = None
    more: tuple[Multiaddr, ...] = ()
    secret: Secret | None = field(default=None, repr=False)

    @property
    def addrs(self) -> tuple[Multiaddr, ...]:
        """All addresses, the first one first."""
        return self.more if self.addr is None else (self.addr, *self.more)

    @property
    def text(self) -> str:
        """For people and logs: it never shows a secret."""
        return peer_text(self.peer) if self.addr is None else str(self.addr)


def parse_target(target: str | Multiaddr | PeerId | Target) -> Target:
    """Reads a ticket, a peer id (either text form) or a multiaddr that ends in /p2p/ID. Raises AddressError."""
    if isinstance(target, Target):
        return target
    if isinstance(target, str) and is_ticket(target):
        ticket = parse_ticket(target)
        if ticket.service != DEFAULT_SERVICE:
            raise TicketError(
                f"the ticket is for the service {ticket.service!r}, and this program knows none by a name; update "
                "punchbridge"
            )
        first, *more = ticket.targets or (None,)
        return Target(ticket.peer, first, tuple(one for one in more if one is not None), ticket.secret)
    if isinstance(target, PeerId):
        return Target(target)
    if isinstance(target, str) and not target.strip().startswith("/"):
        return Target(parse_peer_id(target))
    if not isinstance(target, str | Multiaddr):
        raise AddressError(f"a target is a ticket, a peer id or a multiaddr, not {type(target).__name__}: {target!r}")
    addr = parse(target.strip()) if isinstance(target, str) else target
    peer = peer_of(addr)
    if peer is None:
        raise AddressError(f"{addr} does not say which peer is meant; add /p2p/ID at its end")
    if is_relayed(addr):
        return Target(peer, addr)
    if len(list(addr.protocols())) == 1:
        return Target(peer)
    spoken_endpoint(addr)
    return Target(peer, addr)


def check_policy(path: str) -> PathPolicy:
    """Raises ConfigError for a word that is no path policy."""
    for known in get_args(PathPolicy):
        if path == known:
            return cast(PathPolicy, known)
    raise ConfigError(f"path={path!r} is not one of 'any', 'direct' and 'relay'")


def check_protocol(protocol: str) -> str:
    """Raises ConfigError for an id that multistream-select or the ATTACH frame of a session cannot carry."""
    if protocol.startswith("/") and protocol.isprintable() and protocol.isascii() and len(protocol) <= MAX_SERVICE:
        return protocol
    raise ConfigError(
        f"{protocol!r} is no protocol id: begin with '/', one printable line of at most {MAX_SERVICE} ASCII characters"
    )
