"""What can be chosen about punching, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.limits.punch import (
    DCUTR_ATTEMPT_TIMEOUT,
    DCUTR_ATTEMPTS,
    DCUTR_BACKOFF_MAX,
    DCUTR_BACKOFF_MIN,
    DCUTR_RETRY_FIRST,
    DCUTR_RETRY_MAX,
)

__all__ = ["DcutrPolicy"]


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
