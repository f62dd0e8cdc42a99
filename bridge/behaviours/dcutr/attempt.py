"""One simultaneous open with its upgrade: from two candidate lists and a role to a connection that answered a ping.

The initiator decides which of several sockets is kept: the first whose ping came back; it closes the others. The
responder keeps what answers and lets the rest run on for a moment, since the initiator may have chosen one of them.
A frame of the initiator is an answer too: it had to read the responder's Noise message to send it.
"""

from __future__ import annotations

import trio

from punchbridge.addresses import endpoint_of
from punchbridge.behaviours.dcutr.context import Facts, PunchContext, Won
from punchbridge.errors import BridgeError, DialTimeout
from punchbridge.events import Role
from punchbridge.limits.punch import DCUTR_SOCKET_PATIENCE, DCUTR_UPGRADE_GRACE
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.simultaneous import How, SimultaneousOpen
from punchbridge.transport.tcp.sockets import TcpStream

__all__ = ["Attempt"]


class Attempt:
    """Make it when the remote candidates are known, `run` it before the peer can dial, `go` when it is time to dial."""

    def __init__(
        self,
        context: PunchContext,
        relayed: Connection,
        role: Role,
        facts: Facts,
    ) -> None:
        self._context = context
        self._peer = relayed.peer
        self._patience = DCUTR_SOCKET_PATIENCE + 4 * (relayed.rtt or 0.0)
        self._role = role
        self._facts = facts
        self._remote = facts.remote
        self._evidence = facts.evidence
        self._start = trio.Event()
        self._choosing = trio.Lock()

    def go(self) -> None:
        """Time to dial."""
        self._start.set()

    async def run(self) -> Won | None:
        """The connection, or None when the attempt's deadline (counted from `go`) passed without one.

        Accepted sockets from the candidates' IPs are ours while this runs, whatever their port: behind a symmetric
        NAT the peer's port cannot be known. An IP that other peers of ours have as well (the relay's, or a NAT they
        share) counts with the exact port only, so that a peer cannot catch their connections by naming their IP.
        Without a connection, also when cancelled, the dials in the air stay on the peer's ground.
        """
        endpoints = frozenset(endpoint for endpoint in map(endpoint_of, self._remote) if endpoint is not None)
        hosts = {endpoint.place for endpoint in endpoints} - self._context.hosts_of_others(self._peer)
        ground = self._context.grounds.enter(self._peer)
        opening: SimultaneousOpen[Won] = SimultaneousOpen(
            self._remote,
            source=self._context.source,
            kept=ground.dials,
            take=self._take,
            evidence=self._evidence,
            nursery=self._context.nursery,
            keep_losers=self._role == "responder",
            rng=self._context.rng,
            allowed=self._context.may_dial,
        )
        try:
            ground.aim(endpoints, frozenset(hosts))
            async with flat_nursery() as nursery:
                nursery.start_soon(self._expire, opening, nursery.cancel_scope)
                await opening.run(ground.accepted, self._start)
                nursery.cancel_scope.cancel()
        finally:
            # Asked for here, since the deadline or a cancellation may come between the win and the end of `run`.
            self._facts.won = opening.prize
            if opening.prize is None:
                self._context.grounds.leave(ground)
            else:
                ground.close()
        return opening.prize

    async def _expire(self, opening: SimultaneousOpen[Won], scope: trio.CancelScope) -> None:
        await self._start.wait()
        await trio.sleep(self._context.policy.attempt_timeout)
        if opening.busy:
            await trio.sleep(DCUTR_UPGRADE_GRACE)
        scope.cancel()

    async def _take(self, stream: TcpStream, how: How) -> Won | None:
        """Upgrades a socket in the role of the exchange (D5), then makes a round trip on it."""
        asked_for = self._role == "responder"
        # A black-holed half of a connection must not hold its 4-tuple against the next dial.
        stream.unproven = True
        link = Link(
            raw=stream, local=stream.local, remote=stream.remote, path="direct", inbound=asked_for, punched=True
        )
        connection: Connection | None = None
        try:
            with trio.move_on_after(self._patience):
                connection = await self._context.adopt(link, self._role, self._peer)
        except trio.Cancelled:  # the attempt ended
            self._evidence.upgrades.append("SILENT")
            raise
        except (BridgeError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
            silent = isinstance(problem, DialTimeout)
            self._evidence.upgrades.append("SILENT" if silent else getattr(problem, "code", type(problem).__name__))
            return None
        if connection is None:  # out of patience; unless it stood at that very moment
            ends, standing = (link.local, link.remote), self._context.swarm.connections(self._peer)
            connection = next((one for one in standing if (one.local, one.remote) == ends), None)
        if connection is None:
            self._evidence.upgrades.append("SILENT")
            return None
        return await self._round_trip(connection, how)

    async def _round_trip(self, connection: Connection, how: How) -> Won | None:
        try:
            async with self._choosing:  # one at a time: the first that answers wins
                await self._answer(connection)
        except trio.Cancelled:
            connection.abort("REPLACED")
            raise
        except (BridgeError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
            self._evidence.upgrades.append(getattr(problem, "code", type(problem).__name__))
            connection.abort("NO_ROUND_TRIP")
            return None
        connection.prove()
        return Won(connection, how, connection.rtt)

    async def _answer(self, connection: Connection) -> None:
        """Until a round trip above Noise is done. Raises as `Connection.ping`."""
        if self._role == "initiator":
            await connection.ping()
            return
        async with flat_nursery() as nursery:

            async def heard() -> None:
                await connection.heard.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(heard)
            await connection.ping()
            nursery.cancel_scope.cancel()
        connection.check_alive()
