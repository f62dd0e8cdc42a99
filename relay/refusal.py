"""How the relay says no: a status of the protocol for the client, and a word that counts it for the operator."""

from __future__ import annotations

from punchbridge.errors import RemoteError
from punchbridge.wire.circuit import Status


class HopRefusal(RemoteError):
    """A request is refused. `status` goes to the client; `reason` is the key in RelayStats.refused."""

    code = "REFUSED"

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(f"{status.name}: {reason}")
        self.status = status
        self.reason = reason
