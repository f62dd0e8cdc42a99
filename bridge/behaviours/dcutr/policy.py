"""What can be chosen about punching, and what came of it, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from punchbridge.identity import PeerId
from punchbridge.limits.punch import (
    DCUTR_ATTEMPT_TIMEOUT,
    DCUTR_ATTEMPTS,
    DCUTR_BACKOFF_MAX,
    DCUTR_BACKOFF_MIN,
    DCUTR_RETRY_FIRST,
    DCUTR_RETRY_MAX,
)
from punchbridge.verdict import Code, Verdict

__all__ = ["DcutrPolicy", "PunchOutcome"]


@dataclass(frozen=True)
class DcutrPolicy:
    """How often and how long to try. Seconds."""

    attempts: int = DCUTR_ATTEMPTS
    attempt_timeout: float = DCUTR_ATTEMPT_TIMEOUT
    backoff: tuple[float, float] = (DCUTR_BACKOFF_MIN, DCUTR_BACKOFF_MAX)
    """Between the attempts of one run, drawn at random."""
    retry_first: float = DCUTR_RETRY_FIRST
    """After a run that failed; doubles up to `retry_max`."""
    retry_max: float = DCUTR_RETRY_MAX
    reversal: bool = True
    """Dial the peer's public addresses before the exchange (D2)."""


@dataclass(frozen=True)
class PunchOutcome:
    """How the last attempt with a peer ended. `verdict` is None after a success."""

    peer: PeerId
    verdict: Verdict | None
    attempt: int
    side: Literal["initiator", "responder"]
    final: bool
    elapsed: float
    """Seconds since CONNECT was sent or received."""
    ended: float
    """When it ended, on trio's clock."""
    circuit: int | None = None
    """The newest relayed connection to the peer at that time."""
    how: Literal["connect", "accept", "dial"] | None = None
    connection: int | None = None

    @property
    def code(self) -> Code | None:
        """The word of the verdict; None after a success."""
        return None if self.verdict is None else self.verdict.code
