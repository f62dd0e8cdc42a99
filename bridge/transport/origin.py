"""Where a connection comes from, as bounds and lists count it. Decides nothing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from punchbridge.addresses import Multiaddr, address_group, endpoint_of
from punchbridge.identity import peer_text
from punchbridge.tasks.prefixes import Source, source
from punchbridge.transport.base import Connection

__all__ = ["origin_of", "seen_address", "source_of", "told_address"]


def origin_of(connection: Connection) -> str:
    """What counts as one origin: an address group; over a relay, where no address is seen, the peer itself."""
    endpoint = endpoint_of(connection.remote) if connection.path == "direct" else None
    return peer_text(connection.peer) if endpoint is None else address_group(endpoint.host)


def source_of(connection: Connection) -> Source:
    """The prefixes that a peer counts for: those of its address; over a relay those of the address that the relay tells
    of it, when the relay is one of ours, else the relay itself."""
    address = seen_address(connection) if connection.path == "direct" else told_address(connection)
    if address is not None:
        return source(str(address))
    through = connection.peer if connection.relay is None else connection.relay
    return (("address", f"over {peer_text(through)}"),)


def seen_address(connection: Connection) -> IPv4Address | IPv6Address | None:
    """The address of the peer itself; None over a relay, and where a name was dialled."""
    return _ip(connection.remote) if connection.path == "direct" else None


def told_address(connection: Connection) -> IPv4Address | IPv6Address | None:
    """The address at which the relay of a circuit, named by our user, says that it sees the peer; None without one."""
    return None if connection.attested is None else _ip(connection.attested)


def _ip(addr: Multiaddr) -> IPv4Address | IPv6Address | None:
    endpoint = endpoint_of(addr)
    try:
        return None if endpoint is None else ip_address(endpoint.host)
    except ValueError:
        return None
