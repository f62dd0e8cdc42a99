"""Which protocols we accept inbound, with which handler, and how many streams of each. Decides; starts no task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from punchbridge.errors import ConfigError
from punchbridge.identity import PeerId
from punchbridge.swarm.gater import Audience, anyone

if TYPE_CHECKING:
    from punchbridge.transport.base import Connection, Stream

__all__ = ["Handler", "Registration", "Registry"]

Handler = Callable[["Stream"], Awaitable[None]]


@dataclass(eq=False)
class Registration:
    """One protocol. `audience`: who may open it; to others it is a protocol that we do not speak. `small`: its messages
    are short, so that many unread bytes are a fault. `active` counts the streams whose handler runs, for each peer,
    `origins` for each address and each relay.

    Peer ids cost nothing, so no single address or relay gets more than half of all places.
    """

    protocol: str
    handler: Handler
    max_streams: int
    max_per_peer: int
    relayed: bool
    audience: Audience = anyone
    small: bool = False
    active: Counter[PeerId] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    total: int = 0
    refused: int = 0

    def open_to(self, connection: Connection) -> bool:
        """Whether a stream of it may come on the connection."""
        return (self.relayed or connection.path != "relay") and self.audience(connection)

    def enter(self, peer: PeerId, origin: str | None = None) -> bool:
        """Takes a place for one stream; False when there is none (then it is counted as refused). `origin`: the
        address that the peer came from, or the relay; None when we dialled it."""
        full = self.total >= self.max_streams or self.active[peer] >= self.max_per_peer
        if full or (origin is not None and self.origins[origin] >= max(self.max_per_peer, self.max_streams // 2)):
            self.refused += 1
            return False
        self.active[peer] += 1
        self.total += 1
        if origin is not None:
            self.origins[origin] += 1
        return True

    def leave(self, peer: PeerId, origin: str | None = None) -> None:
        """Gives back the place of one stream."""
        self.total -= 1
        self.active[peer] -= 1
        if not self.active[peer]:
            del self.active[peer]
        if origin is not None:
            self.origins[origin] -= 1
            if not self.origins[origin]:
                del self.origins[origin]


class Registry:
    """Protocol id to registration. `changed` is called after each change of the set of protocols."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._by_protocol: dict[str, Registration] = {}

    def add(self, registration: Registration) -> None:
        """Raises ConfigError when the protocol has a handler already or the limits are not positive."""
        if registration.protocol in self._by_protocol:
            raise ConfigError(f"{registration.protocol} has a handler already; unhandle it first")
        if not registration.protocol or min(registration.max_streams, registration.max_per_peer) < 1:
            raise ConfigError(f"a handler needs a protocol id and limits of at least 1, got {registration.protocol!r}")
        self._by_protocol[registration.protocol] = registration
        self._changed()

    def remove(self, protocol: str) -> None:
        """Streams already open go on; unknown protocols are ignored."""
        if self._by_protocol.pop(protocol, None) is not None:
            self._changed()

    def __iter__(self) -> Iterator[str]:
        """The protocols that somebody may open."""
        return iter(tuple(self._by_protocol))

    def get(self, protocol: str) -> Registration | None:
        """Who takes streams of a protocol, whoever opens them."""
        return self._by_protocol.get(protocol)

    def supported(self, connection: Connection) -> tuple[str, ...]:
        """What the peer may open on a connection (specs/identify: tell only what is accepted)."""
        return tuple(protocol for protocol, one in self._by_protocol.items() if one.open_to(connection))

    def closed_to(self, protocol: str, connection: Connection) -> bool:
        """Whether the protocol is spoken here, and the peer behind the connection is not among those who may open it.
        It is told the same as of a protocol that nobody speaks."""
        registration = self._by_protocol.get(protocol)
        return registration is not None and not registration.audience(connection)

    def find(self, protocol: str, connection: Connection) -> Registration | None:
        """The registration that takes a stream on a connection; None when nobody does."""
        registration = self._by_protocol.get(protocol)
        return registration if registration is not None and registration.open_to(connection) else None
