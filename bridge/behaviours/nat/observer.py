"""A second observer: finds out whether our NAT's mapping depends on the destination (RFC 4787 section 4.1).

One relay at one address cannot tell a symmetric NAT from a home router. When a punch failed outside, the peers we are
connected to are dialled once more, at another of their public IPs and from the listening port; identify records
what they see there. Knows no candidates and judges nothing.
"""

from __future__ import annotations

import trio

from punchbridge.addresses import Multiaddr, Proto, endpoint_of, is_public, is_relayed, without_peer
from punchbridge.errors import BridgeError
from punchbridge.reach.nat import Mapping
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection

__all__ = ["SecondObserver"]


class SecondObserver:
    """Asks for one more observation when the mapping is unknown; holds the connection, so that it stays valid."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.nat
        self.timeout = self._limits.observer_timeout
        """Seconds that `ask` takes at most."""
        self._held: set[str] = set()
        self.nursery: trio.Nursery

    async def ask(self, version: int, proto: Proto) -> Mapping:
        """The mapping for an IP version and protocol, after at most `timeout` seconds. Raises nothing."""
        with trio.move_on_after(self.timeout):
            for server, addr in self._choices(version, proto)[: self._limits.observer_probes]:
                if self._swarm.observed.report(version, proto).mapping is not Mapping.UNKNOWN:
                    break
                await self._probe(server, addr)
        return self._swarm.observed.report(version, proto).mapping

    def _choices(self, version: int, proto: Proto) -> list[tuple[Connection, Multiaddr]]:
        """Other public addresses of peers that we dialled ourselves: relays and bootstrap nodes."""
        found = []
        if self._swarm.listen_port(version, proto) is None:
            return []
        for server in self._swarm.connections():
            here = endpoint_of(server.remote)
            if server.path != "direct" or server.inbound or server.identify is None or here is None:
                continue
            for told in server.identify.listen:
                addr = without_peer(told)
                other = endpoint_of(addr)
                if other is None or is_relayed(addr) or not is_public(addr):
                    continue
                if (other.kind, other.proto) != (here.kind, proto):
                    continue
                if other.ip.version == version and other.host != here.host and str(addr) not in self._held:
                    found.append((server, addr))
        return found

    async def _probe(self, server: Connection, addr: Multiaddr) -> None:
        try:
            connection = await self._swarm.dial(addr, expected=server.peer, fresh=True)
        except BridgeError:
            return
        self._held.add(str(addr))
        self.nursery.start_soon(self.hold, connection, str(addr))
        await connection.identified.wait()

    async def hold(self, connection: Connection, addr: str) -> None:
        """Keeps the connection while it is useful; one that others have begun to use, or need, is theirs."""
        try:
            with trio.move_on_after(self._limits.observer_hold):
                await connection.closed.wait()
            if connection.streams == 0 and self._spare(connection):
                await connection.aclose()
        finally:
            self._held.discard(addr)

    def _spare(self, connection: Connection) -> bool:
        """Another direct connection to the peer stands: a reservation ends with the last one, and shows no stream."""
        others = (one for one in self._swarm.connections(connection.peer) if one is not connection)
        return any(one.path == "direct" and not one.closed.is_set() for one in others)
