"""The transports of an attacker's connections: TCP, and QUIC where its engine is built."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

from punchbridge.identity import Identity
from tests.attacks.attacker import Attacker
from tests.attacks.programs import Listening, Relay

__all__ = ["TRANSPORTS", "UDP", "Over", "dial"]

Over = Literal["TCP", "QUIC"]

TRANSPORTS: Final[tuple[Over, ...]] = ("TCP", "QUIC") if find_spec("punchbridge_quic") else ("TCP",)
"""What rows are played over."""

UDP: Final = "/ip4/{}/udp/0/quic-v1"
"""Where a victim listens with QUIC, of an IP."""


async def dial(
    over: Over,
    victim: Relay | Listening,
    *,
    source: str,
    ip: str | None = None,
    identity: Identity | None = None,
    late: float = 0.0,
) -> Attacker:
    """A connection to a program, at `ip` or where it says. `late`: see QuicAttacker; over TCP it says nothing.

    Raises OSError, Ended and trio's errors.
    """
    host = ip or victim.ip
    if over == "TCP":
        return await Attacker.dial(host, victim.port, source=source, identity=identity)
    from tests.attacks.attacker_quic import QuicAttacker

    return await QuicAttacker(source, identity, late).reach(host, victim.udp)
