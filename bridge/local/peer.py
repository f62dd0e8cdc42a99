"""Who is at the other end of an RPC: ConnectInfo, and the table from a pump's socket name to it.

The table is written by the pumps and read by handlers in any thread. It knows no swarm: a ConnectInfo reads its live
fields from whatever carries the RPC's bytes at the moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Literal, Protocol
from urllib.parse import unquote

from punchbridge.errors import NotBridged
from punchbridge.events import Event, SessionSwitched

__all__ = ["TABLE", "Carrier", "ConnectInfo", "PeerTable", "peer", "synthesized_address"]

_ULA_GLOBAL_ID = b"punch"
"""RFC 4193: fd, then 40 bits that should be random; ours are fixed, so that the address of a peer is the same
everywhere. It is a name in the form of an address and is never routed."""


class Carrier(Protocol):
    """What a ConnectInfo asks of the thing that carries the bytes now."""

    @property
    def path(self) -> Literal["direct", "relay"]: ...

    @property
    def moves(self) -> bool: ...

    @property
    def multiaddr(self) -> str: ...

    @property
    def observed(self) -> str | None: ...

    @property
    def round_trip(self) -> float | None: ...

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]: ...


def synthesized_address(peer_id: str) -> tuple[str, int]:
    """A stable socket address for a peer id: a unique local IPv6 address (RFC 4193) and a port from its hash.

    For code that keys its peers by address. Equal for equal peer ids on every machine; nobody listens there.
    """
    digest = hashlib.sha256(peer_id.encode()).digest()
    host = IPv6Address(b"\xfd" + _ULA_GLOBAL_ID + digest[:10])
    port = 1024 + int.from_bytes(digest[10:12], "big") % (65536 - 1024)
    return str(host), port


class ConnectInfo:
    """The peer behind an RPC or a stream. `path`, `multiaddr`, `observed` and `round_trip` are live.

    peer_id: base58 text, proven by the Noise handshake. protocol: the id of the stream's protocol.
    address: stable synthesized socket address of the peer id (see `synthesized_address`).
    """

    __slots__ = ("_carrier", "address", "peer_id", "protocol")

    def __init__(self, peer_id: str, protocol: str, carrier: Carrier) -> None:
        self.peer_id = peer_id
        self.protocol = protocol
        self.address = synthesized_address(peer_id)
        self._carrier = carrier

    @property
    def path(self) -> Literal["direct", "relay"]:
        """Whether the bytes go over a relay now."""
        return self._carrier.path

    @property
    def moves(self) -> bool:
        """True for a session, which changes paths without breaking; False for a plain stream, bound to one."""
        return self._carrier.moves

    @property
    def multiaddr(self) -> str:
        """The peer's address on the present path, ending in /p2p/ID; a circuit address names the relay."""
        return self._carrier.multiaddr

    @property
    def observed(self) -> str | None:
        """Our own address as this peer sees it (identify); None on a relayed path and before identify."""
        return self._carrier.observed

    @property
    def round_trip(self) -> float | None:
        """Seconds there and back on the present path; None before it was measured."""
        return self._carrier.round_trip

    def subscribe(self, callback: Callable[[SessionSwitched], None]) -> Callable[[], None]:
        """Calls back with the event of each move to another connection; returns how to end that (idempotent).

        In the network thread: return fast, call no blocking method; what the callback raises is logged. A plain stream
        never moves, so nothing is ever called then.
        """

        def told(event: Event) -> None:
            if isinstance(event, SessionSwitched):
                callback(event)

        return self._carrier.subscribe(told)

    def __repr__(self) -> str:
        return f"ConnectInfo({self.peer_id}, {self.path}, {self.multiaddr}, {self.protocol})"


class HasPeer(Protocol):
    def peer(self) -> str: ...


class PeerTable:
    """Pump socket names and the peers behind them. One dict; each call is one atomic operation on it."""

    def __init__(self) -> None:
        self._infos: dict[str, ConnectInfo] = {}

    def __len__(self) -> int:
        return len(self._infos)

    def add(self, name: str, info: ConnectInfo) -> None:
        self._infos[f"unix:{name}"] = info

    def remove(self, name: str) -> None:
        """Idempotent."""
        self._infos.pop(f"unix:{name}", None)

    def find(self, peer: str) -> ConnectInfo | None:
        """`peer` is what a handler's `context.peer()` returns."""
        return self._infos.get(unquote(peer))


TABLE = PeerTable()
"""Names are 128 random bits, so all bridges of a process share one table and handlers need not know which is which."""


def peer(context: HasPeer) -> ConnectInfo:
    """The peer behind an RPC, inside its handler; for contexts of grpc servers and of grpc.aio servers.

    Raises NotBridged when the RPC came over another port of the server, or the connection has just ended.
    """
    name = context.peer()
    info = TABLE.find(name)
    if info is None:
        raise NotBridged(f"no peer stands behind {name!r}: the call came another way, or its connection is gone")
    return info
