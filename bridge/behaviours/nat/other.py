"""Each relay sees both of our listening ports: a second connection to it, over the transport that the first has not.

Punching over a transport needs the address at which others see its port, and only a connection over that transport
shows it. The second connection stays as long as the first: it keeps the NAT's mapping alive, and circuits go over
either one. A relay that is reached over TCP and never answers over QUIC shows that UDP is blocked on the way. Knows no
candidates.
"""

from __future__ import annotations

from typing import Final

import trio

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of, is_public, is_relayed, without_peer
from punchbridge.errors import BridgeError, DialTimeout
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection
from punchbridge.wire.circuit import HOP

__all__ = ["OtherTransport"]

_OTHER: Final[dict[Proto, Proto]] = {"tcp": "udp", "udp": "tcp"}


class OtherTransport:
    """Keeps the second connections to the relays that we dialled. `nursery` is set before the first `identified`."""

    def __init__(self, swarm: Swarm) -> None:
        self.nursery: trio.Nursery
        self._swarm = swarm
        self._limits = swarm.config.limits.nat
        self._silent: set[int] = set()
        self._followed: set[int] = set()

    def udp_blocked(self, versions: list[int]) -> bool:
        """Whether a relay that says that it speaks QUIC did not answer over it, for one of these IP versions, and none
        did since."""
        return not self._silent.isdisjoint(versions)

    def identified(self, connection: Connection) -> None:
        """A peer has told about itself. If it is a relay that we dialled, it gets its second connection."""
        told, remote = connection.identify, endpoint_of(connection.remote)
        if connection.path != "direct" or connection.inbound or told is None or remote is None:
            return
        if HOP not in told.protocols or self._swarm.listen_port(remote.ip.version, _OTHER[remote.proto]) is None:
            return
        if connection.id not in self._followed:
            self._followed.add(connection.id)
            self.nursery.start_soon(self._follow, connection, remote)

    async def _follow(self, first: Connection, remote: Endpoint) -> None:
        try:
            await self._keep(first, remote)
        finally:
            self._followed.discard(first.id)

    async def _keep(self, first: Connection, remote: Endpoint) -> None:
        pause = self._limits.other_retry
        while not first.closed.is_set():
            second = self._standing(first, _OTHER[remote.proto]) or await self._dial(first, remote)
            if second is None:
                with trio.move_on_after(pause):
                    await first.closed.wait()
                pause = min(2 * pause, self._limits.other_retry_most)
                continue
            pause = self._limits.other_retry
            await _either(first, second)
            # A peer that leaves, or is left, closes its connections one after another.
            with trio.move_on_after(self._limits.other_settle):
                await first.closed.wait()

    def _standing(self, first: Connection, proto: Proto) -> Connection | None:
        """A connection to the same relay over the other transport, for the same IP version."""
        here = endpoint_of(first.remote)
        for one in self._swarm.connections(first.peer):
            there = endpoint_of(one.remote)
            if one.path != "direct" or one.closing or there is None or here is None:
                continue
            if (there.kind, there.proto) == (here.kind, proto) and not one.inbound:
                return one
        return None

    async def _dial(self, first: Connection, remote: Endpoint) -> Connection | None:
        proto = _OTHER[remote.proto]
        silent = False
        for addr in self._choices(first, remote, proto)[: self._limits.other_addresses]:
            try:
                connection = await self._swarm.dial(addr, expected=first.peer, fresh=True)
            except DialTimeout:
                silent = True
            except BridgeError:
                pass  # it is no sign of the network: the relay refuses us, or there is another host
            else:
                if proto == "udp":
                    self._silent.discard(remote.ip.version)
                return connection
        if silent and proto == "udp":
            self._silent.add(remote.ip.version)
        return None

    @staticmethod
    def _choices(first: Connection, remote: Endpoint, proto: Proto) -> list[Multiaddr]:
        """The relay's addresses of the other transport: those at the IP that answered before others."""
        assert first.identify is not None
        same, others = [], []
        for told in first.identify.listen:
            addr = without_peer(told)
            endpoint = endpoint_of(addr)
            if endpoint is None or is_relayed(addr) or (endpoint.kind, endpoint.proto) != (remote.kind, proto):
                continue
            if endpoint.host == remote.host:
                same.append(addr)
            elif is_public(addr):
                others.append(addr)
        return same + others


async def _either(first: Connection, second: Connection) -> None:
    """Until one of the two is closed."""
    async with trio.open_nursery() as nursery:

        async def wait(connection: Connection) -> None:
            await connection.closed.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, first)
        nursery.start_soon(wait, second)
