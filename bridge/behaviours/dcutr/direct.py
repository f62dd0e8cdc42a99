"""The ways to open a direct connection once two sides have exchanged candidates: what an exchange knows of them.

Candidates and a role go in; a connection on which a round trip was made comes out, or evidence of why there is none.
TCP simultaneous open is one (`punchbridge.behaviours.dcutr.tcp`), a QUIC dial into an opened NAT is another
(`punchbridge.behaviours.dcutr.quic`). What they share stands here: the declarations, and when a connection counts.
"""

from __future__ import annotations

from typing import Protocol

from punchbridge.behaviours.dcutr.attempts import Attempt, Won
from punchbridge.events import Role
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection

__all__ = ["DirectOpener", "Opening", "answered"]


class Opening(Protocol):
    """One attempt of one opener: `run` it before the peer can dial, `go` when it is time to dial."""

    def go(self) -> None:
        """Time to dial."""

    async def run(self) -> Won | None:
        """The connection, or None when the attempt's deadline (counted from `go`) passed without one.

        What was seen goes into the attempt's evidence, a connection into its `won` as soon as there is one: a
        cancellation behind it does not undo it. Raises LimitExceeded when too many attempts are under way.
        """


class DirectOpener(Protocol):
    """One way to open a direct connection."""

    def prepare(self, attempt: Attempt, role: Role, circuit: Connection) -> Opening:
        """An opening at the attempt's remote candidates. `role`: ours in everything above the transport (D5);
        `circuit`: the relayed connection on which it was arranged."""


async def answered(connection: Connection) -> None:
    """Until the peer has shown that it took our part of the handshake: by a frame of its own, which comes with the
    handshake's last message or behind it, or by the answer to a ping. Raises as `Connection.ping`."""
    async with flat_nursery() as nursery:

        async def heard() -> None:
            await connection.heard.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(heard)
        await connection.ping()
        nursery.cancel_scope.cancel()
    connection.check_alive()
