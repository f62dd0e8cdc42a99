"""The ports of a swarm: the transports that accept at sockets of this machine, TCP and QUIC, as one.

It composes them, says where they listen and which port dials leave from, and binds both to one number where that is
asked for. It knows no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of, is_relayed, with_port
from punchbridge.config import Limits, Transports
from punchbridge.errors import AddressError, PortInUse
from punchbridge.eventhub import EventHub
from punchbridge.identity import Identity
from punchbridge.tasks.fair import FairQueue
from punchbridge.tasks.memory import Memory
from punchbridge.transport.absent import absent, check_present
from punchbridge.transport.base import Accept, Connection, ServingTransport, Upgrader
from punchbridge.transport.tcp.listener import Listeners
from punchbridge.transport.tcp.transport import TcpTransport

if TYPE_CHECKING:
    from punchbridge.transport.quic.transport import QuicTransport

__all__ = ["Ports", "together"]

_TRIES: Final = 32
"""Numbers that are tried until one is free for all transports. Where every second UDP port is taken, one start in four
thousand million finds none."""


class Ports:
    """TCP, and QUIC where it is there. `missing`: why a transport is not, by the name in its addresses."""

    def __init__(
        self,
        identity: Identity,
        upgrader: Upgrader,
        limits: Limits,
        transports: Transports,
        *,
        changed: Callable[[], None],
        events: EventHub,
        memory: Memory,
        crowded: Callable[[str], bool],
        moved: Callable[[Connection, Multiaddr], None],
        turns: FairQueue[str],
        dropped: Callable[[str], None],
    ) -> None:
        """changed: called when the bound addresses are others. crowded: whether a newcomer that may be elsewhere than
        the IP says has to show first that it is there. moved: called when the peer of a connection is at another
        address than before. turns: in which order connections go on that have much to do. dropped: called with the IP
        of a source whose datagrams found no room."""
        self.missing: Mapping[str, str] = absent(transports)
        self.tcp = TcpTransport(upgrader, Listeners(changed, events, limits.tcp), limits.tcp)
        self.quic: QuicTransport | None = None
        if "quic-v1" not in self.missing:
            from punchbridge.transport.quic.transport import QuicTransport

            self.quic = QuicTransport(
                identity, changed, limits.quic, limits.muxed, memory, crowded, moved, turns, dropped
            )
        self.serving: tuple[ServingTransport, ...] = (self.tcp,) if self.quic is None else (self.tcp, self.quic)

    def addrs(self) -> tuple[Multiaddr, ...]:
        """The bound addresses, wildcards expanded to what the interfaces have now; TCP first, loopback last."""
        found = [addr for transport in self.serving for addr in transport.addrs()]
        return tuple(sorted(found, key=_on_loopback))

    def port(self, version: int, proto: Proto) -> tuple[str, int] | None:
        """The (ip, port) that dials of an IP version and a protocol leave from; None when there is none."""
        if proto == "tcp":
            return self.tcp.port(version)
        return None if self.quic is None else self.quic.port(version)

    async def listen(self, addrs: Sequence[Multiaddr], accept: Accept) -> tuple[Multiaddr, ...]:
        """Listens on a group of `together`: the first picks a number, and another one when it is taken for the others.

        Returns the bound addresses. Raises as `Transport.listen`; then none is left.
        """
        first, *others = addrs
        for tries_left in reversed(range(_TRIES)):
            bound = await self._of(first).listen(first, accept)
            try:
                port = _port(bound)
                for addr in others:
                    bound += await self._of(addr).listen(with_port(addr, port), accept)
                return bound
            except PortInUse:
                self._unlisten(bound)
                if not tries_left:
                    raise
            except BaseException:
                self._unlisten(bound)
                raise
        raise AssertionError("the last try returns or raises")

    def _unlisten(self, bound: Sequence[Multiaddr]) -> None:
        for addr in bound:
            self._of(addr).unlisten(addr)

    def _of(self, addr: Multiaddr) -> ServingTransport:
        check_present(addr, self.missing)
        for transport in self.serving:
            if transport.handles(addr):
                return transport
        raise AddressError(f"cannot listen on {addr}; an address to listen on looks like /ip4/0.0.0.0/tcp/4001")


def together(addrs: Sequence[Multiaddr]) -> list[tuple[Multiaddr, ...]]:
    """The addresses in groups that are to have one port number: those of one IP, each of another transport, that leave
    the number open. All others stand alone."""
    groups: list[list[Multiaddr]] = []
    for addr in addrs:
        mine = _open(addr)
        for group in groups:
            others = [_open(one) for one in group]
            if mine is not None and None not in others and _fits(mine, others):
                group.append(addr)
                break
        else:
            groups.append([addr])
    return [tuple(group) for group in groups]


def _open(addr: Multiaddr) -> Endpoint | None:
    endpoint = None if is_relayed(addr) else endpoint_of(addr)
    return endpoint if endpoint is not None and endpoint.port == 0 else None


def _fits(mine: Endpoint, others: Sequence[Endpoint | None]) -> bool:
    return all(one is not None and one.host == mine.host and one.proto != mine.proto for one in others)


def _port(bound: Sequence[Multiaddr]) -> int:
    endpoint = endpoint_of(bound[0])
    assert endpoint is not None
    return endpoint.port


def _on_loopback(addr: Multiaddr) -> bool:
    endpoint = endpoint_of(addr)
    return endpoint is not None and endpoint.on_loopback
