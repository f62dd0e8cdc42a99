"""What stays standing between the attempts with one peer: dials in the air, and sockets that its dials brought here.

The two sides never end and begin an attempt at the same instant. A SYN that comes in between must find the dial whose
mapping it came through (`punchbridge.transport.tcp.dial`), and a socket that the listener accepts in between belongs
to the punch and to DCUtR's role. After a whole run the dials alone stay, until their mappings have gone: the peer may
plainly dial us meanwhile. What is done with them is the next attempt's business.
"""

from __future__ import annotations

from contextlib import ExitStack

import trio

from punchbridge.addresses import Endpoint, Multiaddr, Proto, endpoint_of
from punchbridge.errors import LimitExceeded
from punchbridge.identity import PeerId
from punchbridge.limits.punch import DCUTR_KEEP, DCUTR_MAX_KEPT, DCUTR_OUTLAST, DCUTR_OUTLAST_MARGIN
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.tcp.dial import DialsKept
from punchbridge.transport.tcp.sockets import TcpStream

__all__ = ["Ground", "Grounds"]


class Ground:
    """One peer's. Sockets that are accepted from where it aims wait in `accepted`."""

    def __init__(self, swarm: Swarm, peer: PeerId) -> None:
        """Raises LimitExceeded when too many punches wait for sockets."""
        self.peer = peer
        self.dials = DialsKept()
        self.idle = trio.CancelScope()
        self._endpoints: frozenset[Endpoint] = frozenset()
        self._hosts: frozenset[tuple[Proto, str]] = frozenset()
        self._swarm = swarm
        self._stack = ExitStack()
        self.accepted: trio.MemoryReceiveChannel[TcpStream]
        self.dozes = True
        self.wake()

    def wake(self) -> None:
        """Diverts sockets from now on. Raises LimitExceeded when too many punches do."""
        if self.dozes:
            self.accepted = self._stack.enter_context(self._swarm.divert(self._matches))
            self.dozes = False

    def doze(self) -> None:
        """The run is over: nothing is diverted any more, the dials stay."""
        if not self.dozes:
            self._stack.close()
            self.dozes = True
            self.dials.outlast()

    def aim(self, endpoints: frozenset[Endpoint], hosts: frozenset[tuple[Proto, str]]) -> None:
        """An attempt begins: sockets from these endpoints are ours, and from any port of these hosts."""
        self._endpoints, self._hosts = endpoints, hosts
        self.dials.aim(endpoints)

    def rest(self) -> None:
        """The attempt is over: the exact endpoints only, since anybody at these hosts may have other business."""
        self._hosts = frozenset()

    def close(self) -> None:
        """Resets what is left."""
        self.dials.close()
        self._stack.close()

    def _matches(self, remote: Multiaddr) -> bool:
        endpoint = endpoint_of(remote)
        return endpoint is not None and (endpoint.place in self._hosts or endpoint in self._endpoints)


class Grounds:
    """The grounds of all peers: with an attempt on them, or kept for the next one."""

    def __init__(self, swarm: Swarm) -> None:
        self.nursery: trio.Nursery
        self._swarm = swarm
        self._idle: dict[PeerId, Ground] = {}
        self._stopped = False

    def enter(self, peer: PeerId) -> Ground:
        """The ground that was kept for the peer, or a fresh one; give it back with `leave`. Raises LimitExceeded."""
        ground = self._idle.pop(peer, None)
        if ground is None:
            return Ground(self._swarm, peer)
        ground.idle.cancel()
        try:
            ground.wake()
        except LimitExceeded:
            ground.close()
            raise
        return ground

    def leave(self, ground: Ground) -> None:
        """Keeps it for the peer's next attempt, DCUTR_KEEP seconds at most, unless there are too many."""
        if len(self._idle) >= DCUTR_MAX_KEPT:
            self._release(next((one for one in self._idle.values() if one.dozes), None))
        if self._stopped or ground.peer in self._idle or len(self._idle) >= DCUTR_MAX_KEPT:
            ground.close()
            return
        ground.rest()
        self._idle[ground.peer] = ground
        self._keep(ground, DCUTR_KEEP)

    def outlast(self, peer: PeerId, pause: float) -> None:
        """The run is over, and the next one comes after a pause (s). The dials stay for it if their mappings do."""
        ground = self._idle.get(peer)
        if ground is None:
            return
        if pause >= DCUTR_OUTLAST or not ground.dials:
            self._release(ground)
            return
        ground.idle.cancel()
        ground.doze()
        self._keep(ground, pause + DCUTR_OUTLAST_MARGIN)

    def forget(self, peer: PeerId) -> None:
        """No attempt follows."""
        self._release(self._idle.get(peer))

    def stop(self) -> None:
        """Closes all that are kept, and from now on those that are left."""
        self._stopped = True
        for peer in tuple(self._idle):
            self.forget(peer)

    def _keep(self, ground: Ground, seconds: float) -> None:
        ground.idle = trio.CancelScope()
        self.nursery.start_soon(self._expire, ground, ground.idle, seconds)

    async def _expire(self, ground: Ground, idle: trio.CancelScope, seconds: float) -> None:
        with idle:
            try:
                await trio.sleep(seconds)
            finally:
                if not idle.cancel_called:  # else somebody has taken it, or closed it
                    self._release(ground)

    def _release(self, ground: Ground | None) -> None:
        if ground is not None:
            ground.idle.cancel()
            del self._idle[ground.peer]
            ground.close()
