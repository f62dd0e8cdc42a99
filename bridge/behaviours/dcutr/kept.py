"""What stays open between the attempts with one peer: dials in the air, and sockets that its dials brought here.

The two sides never end and begin an attempt at the same instant. A SYN that comes in between must find the dial whose
mapping it came through (`punchbridge.transport.tcp.dial`), and a socket that the listener accepts in between belongs
to the punch and to DCUtR's role. After a whole run the dials alone stay, until their mappings have gone: the peer may
plainly dial us meanwhile. The next attempt decides what becomes of them.
"""

from __future__ import annotations

from contextlib import ExitStack

import trio

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of
from punchbridge.errors import LimitExceeded
from punchbridge.identity import PeerId
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.tcp.dial import KeptDials
from punchbridge.transport.tcp.sockets import TcpStream

__all__ = ["KeptSockets", "PeerSockets"]


class PeerSockets:
    """The sockets of one peer's punches. Those that are accepted from where the punch expects them wait in
    `accepted`."""

    def __init__(self, swarm: Swarm, peer: PeerId, network: int) -> None:
        """Raises LimitExceeded when too many punches wait for sockets. `network`: counts the networks that this machine
        has been in; the dials left from an address of that one."""
        self.peer = peer
        self.network = network
        self.dials = KeptDials()
        self.expiry = trio.CancelScope()
        self._endpoints: frozenset[Endpoint] = frozenset()
        self._hosts: frozenset[tuple[Proto, str]] = frozenset()
        self._swarm = swarm
        self._stack = ExitStack()
        self.accepted: trio.MemoryReceiveChannel[TcpStream]
        self.diverts = False
        """Accepted sockets are taken out of the listener's hands."""
        self.divert()

    def divert(self) -> None:
        """Takes accepted sockets from now on. Raises LimitExceeded when too many punches do."""
        if not self.diverts:
            self.accepted = self._stack.enter_context(self._swarm.divert(self._matches))
            self.diverts = True

    def keep_dials_only(self) -> None:
        """The run is over: accepted sockets go to the listener again, the dials stay."""
        if self.diverts:
            self._stack.close()
            self.diverts = False
            self.dials.age()

    def expect(self, endpoints: frozenset[Endpoint], hosts: frozenset[tuple[Proto, str]]) -> None:
        """An attempt begins: sockets from these endpoints are ours, and from any port of these hosts."""
        self._endpoints, self._hosts = endpoints, hosts
        self.dials.restrict(endpoints)

    def expect_endpoints_only(self) -> None:
        """The attempt is over: anybody at its hosts may have other business, so only exact endpoints count."""
        self._hosts = frozenset()

    def close(self) -> None:
        """Resets what is left."""
        self.dials.close()
        self._stack.close()

    def _matches(self, remote: Multiaddr) -> bool:
        endpoint = endpoint_of(remote)
        return endpoint is not None and (endpoint.place in self._hosts or endpoint in self._endpoints)


class KeptSockets:
    """The sockets of all peers that are kept for a next attempt, `limits.punch.kept_peers` at most.

    An attempt takes its peer's out with `take` and gives them back with `keep`, or closes them.
    """

    def __init__(self, swarm: Swarm) -> None:
        self.nursery: trio.Nursery
        self._swarm = swarm
        self._limits = swarm.config.limits.punch
        self._kept: list[PeerSockets] = []
        self._network = 0
        self._stopped = False

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """The peers whose sockets are kept, in the order in which they came."""
        return tuple(one.peer for one in self._kept)

    def of(self, peer: PeerId) -> PeerSockets | None:
        """What is kept for a peer."""
        return next((one for one in self._kept if one.peer == peer), None)

    def take(self, peer: PeerId) -> PeerSockets:
        """What was kept for the peer, or fresh sockets. Raises LimitExceeded when too many punches wait for some."""
        sockets = self.of(peer)
        if sockets is None:
            return PeerSockets(self._swarm, peer, self._network)
        self._remove(sockets)
        try:
            sockets.divert()
        except LimitExceeded:
            sockets.close()
            raise
        return sockets

    def keep(self, sockets: PeerSockets) -> None:
        """Keeps them for the peer's next attempt, but not for long, unless there are too many or they are of another
        network."""
        if len(self._kept) >= self._limits.kept_peers:
            self._close(next((one for one in self._kept if not one.diverts), None))
        full = len(self._kept) >= self._limits.kept_peers
        if self._stopped or full or sockets.network != self._network or self.of(sockets.peer) is not None:
            sockets.close()
            return
        sockets.expect_endpoints_only()
        self._kept.append(sockets)
        self._expire_after(sockets, self._limits.keep_for_attempt)

    def keep_for_next_run(self, peer: PeerId, pause: float) -> None:
        """The run is over, and the next one comes after a pause (s). The dials stay for it if their mappings do."""
        sockets = self.of(peer)
        if sockets is None:
            return
        if pause >= self._limits.keep_for_run or not sockets.dials:
            self._close(sockets)
            return
        sockets.expiry.cancel()
        sockets.keep_dials_only()
        self._expire_after(sockets, pause + self._limits.keep_margin)

    def close(self, peer: PeerId) -> None:
        """No attempt with the peer follows."""
        self._close(self.of(peer))

    def network_changed(self) -> None:
        """Closes all that are kept, and those that an attempt has taken as soon as it gives them back: their dials have
        left from an address that is ours no more."""
        self._network += 1
        self._close_all()

    def stop(self) -> None:
        """Closes all that are kept, and from now on those that are given back."""
        self._stopped = True
        self._close_all()

    def _close_all(self) -> None:
        for sockets in tuple(self._kept):
            self._close(sockets)

    def _expire_after(self, sockets: PeerSockets, seconds: float) -> None:
        sockets.expiry = trio.CancelScope()
        self.nursery.start_soon(self._expire, sockets, sockets.expiry, seconds)

    async def _expire(self, sockets: PeerSockets, expiry: trio.CancelScope, seconds: float) -> None:
        with expiry:
            try:
                await trio.sleep(seconds)
            finally:
                if not expiry.cancel_called:  # else an attempt has taken them, or they were closed
                    self._close(sockets)

    def _remove(self, sockets: PeerSockets) -> None:
        sockets.expiry.cancel()
        self._kept.remove(sockets)

    def _close(self, sockets: PeerSockets | None) -> None:
        if sockets is not None:
            self._remove(sockets)
            sockets.close()
