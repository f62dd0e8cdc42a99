"""What sessions ask of the host around them. Declarations only; the host's own room is above this one."""

from __future__ import annotations

from typing import Protocol

from punchbridge.behaviours.dcutr import Dcutr
from punchbridge.behaviours.relay_client import RelayClient
from punchbridge.swarm.swarm import Swarm

__all__ = ["Around"]


class Around(Protocol):
    """The parts of a host that a session uses: connections, our relays, and whether a punch is under way."""

    @property
    def swarm(self) -> Swarm: ...

    @property
    def relay_client(self) -> RelayClient: ...

    @property
    def dcutr(self) -> Dcutr | None: ...
