"""Which of our protocols a connection may open: what the pool asks before it takes a socket, a connection or a stream.

Three circles of peers, each inside the one before. *Anyone* got through security. *Known* is who may call something
here, and also whomever we have dialled ourselves: a relay that we asked may offer circuits to us, a server that we call
may punch to us. *Listed* is who is on the lists, and only they call what is served here, unless a service admits more.
The lists come as a value; this module opens nothing and reads no file. go-libp2p calls the same place a connection
gater.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TypeAlias

from punchbridge.access.lists import Address
from punchbridge.access.policy import Access, Decision
from punchbridge.identity import PeerId
from punchbridge.tasks.supervise import report
from punchbridge.transport.base import Connection
from punchbridge.transport.origin import seen_address, told_address

__all__ = ["Audience", "Gater", "anyone"]

Audience = Callable[[Connection], bool]
"""Whether whoever is behind a connection may open a protocol."""

_Places: TypeAlias = tuple[Address | None, Address | None]
"""Where we see a peer, and where its relay says that it sees the peer."""


def anyone(_connection: Connection) -> bool:
    """The audience of what strangers may open too."""
    return True


class Gater:
    """The answers for one swarm. `enter` and `leave` follow its connections."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._dialled: set[int] = set()
        self._seen: dict[int, _Places] = {}
        """Where each connection's peer is seen, so that asking costs no parsing."""
        self._services: dict[str, Audience] = {}
        self._followers: list[Callable[[], None]] = []

    # --- the lists ----------------------------------------------------------------------------------------

    @property
    def access(self) -> Access:
        """The lists in force. Setting others tells everybody who follows."""
        return self._access

    @access.setter
    def access(self, access: Access) -> None:
        if access != self._access:
            self._access = access
            self._changed()

    def follow(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back, without arguments, each time that an answer may be another one than before. The value returned
        ends that."""
        self._followers.append(callback)

        def leave() -> None:
            if callback in self._followers:
                self._followers.remove(callback)

        return leave

    def _changed(self) -> None:
        for callback in tuple(self._followers):
            try:
                callback()
            except Exception as problem:  # noqa: BLE001 - a named supervisor: one follower's defect is not the others'
                report("a follower of the access lists", problem)

    # --- connections --------------------------------------------------------------------------------------

    def refuses_host(self, host: str) -> bool:
        """Judges an accepted socket by the address that it comes from."""
        try:
            return self._access.denies_address(ip_address(host))
        except ValueError:
            return False

    def refuses(self, connection: Connection) -> bool:
        """Judges a connection whose peer is proven. What we have dialled ourselves is not refused."""
        return connection.inbound and self._decide(connection) is Decision.DENIED

    def enter(self, connection: Connection, others: Iterable[Connection]) -> None:
        """A connection is in the table; `others` are the peer's others. A punched one may come in from the peer
        although we have dialled the circuit that it began on."""
        self._seen[connection.id] = _places(connection)
        if not connection.inbound or any(one.id in self._dialled for one in others):
            self._dialled.add(connection.id)

    def moved(self, connection: Connection) -> None:
        """The peer is seen at another address than before."""
        before, self._seen[connection.id] = self._seen.get(connection.id), _places(connection)
        if before != self._seen[connection.id]:
            self._changed()

    def leave(self, connection: Connection) -> None:
        """A connection is out of the table."""
        self._dialled.discard(connection.id)
        self._seen.pop(connection.id, None)

    # --- audiences ----------------------------------------------------------------------------------------

    def listed(self, connection: Connection) -> bool:
        """The audience of what is served here."""
        return self._decide(connection) is Decision.ALLOWED

    def named(self, connection: Connection) -> bool:
        """Whether the peer stands on the lists itself, which everybody does not where anyone may call. Such peers come
        before strangers where there is not enough of something."""
        return self._access.names(connection.peer, seen_address(connection))

    def known(self, connection: Connection) -> bool:
        """The audience of what makes and keeps connections."""
        if connection.id in self._dialled or self.listed(connection):
            return True
        return any(audience(connection) for audience in self._services.values())

    def also(self, access: Access) -> Audience:
        """The audience of a service that admits others beside those on the lists; who is denied here stays denied."""

        def audience(connection: Connection) -> bool:
            decision = self._decide(connection)
            if decision is Decision.UNKNOWN:
                decision = access.decide(connection.peer, *self._places(connection))
            return decision is Decision.ALLOWED

        return audience

    def serve(self, protocol: str, audience: Audience) -> None:
        """A service has an audience of its own; whoever is in it is known here."""
        self._services[protocol] = audience
        self._changed()

    def unserve(self, protocol: str) -> None:
        """The service has ended. Unknown ones are ignored."""
        if self._services.pop(protocol, None) is not None:
            self._changed()

    def labels(self, peer: PeerId) -> frozenset[str]:
        """The labels by which a peer is on the lists."""
        return self._access.labels(peer)

    def _decide(self, connection: Connection) -> Decision:
        return self._access.decide(connection.peer, *self._places(connection))

    def _places(self, connection: Connection) -> _Places:
        """As the connection was entered; before that, and after its end, read from it."""
        return self._seen[connection.id] if connection.id in self._seen else _places(connection)


def _places(connection: Connection) -> _Places:
    return seen_address(connection), told_address(connection)
