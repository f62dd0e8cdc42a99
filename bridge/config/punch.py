"""What can be chosen about hole punching, and the bounds of it."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Count, Seconds
from punchbridge.errors import ConfigError

__all__ = ["Punch"]

RETRY_LEAST = 1.0
"""The shortest pause between runs that may be asked for: the peer bounds how often it answers."""


@dataclass(frozen=True, kw_only=True)
class Punch(Checked):
    """Whether, how often and how long a direct connection is punched."""

    enabled: bool = True
    """False sends no DCUtR message and answers none, and tells peers on circuits no address to dial back."""

    attempts: Count = 3
    """Simultaneous opens of one run, each with an exchange of its own (specs/relay/DCUtR.md: two retries)."""

    attempt_timeout: Seconds = 5.0
    """One simultaneous open, from SYNC on: the SYN, and its retransmits after 1 s and 3 s."""

    pause_least: Seconds = 0.2
    """The shortest pause between the attempts of one run."""

    pause_most: Seconds = 0.6
    """The longest such pause. Each is drawn at random, so that two sides do not stay in step."""

    retry: Seconds = 30.0
    """After a run that failed the next run waits this long, and twice as long each time after that."""

    retry_most: Seconds = 600.0
    """The longest pause between runs; a longer `retry` is its own longest."""

    reversal: bool = True
    """Dial the peer's public addresses before the exchange (D2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retry < RETRY_LEAST:
            raise ConfigError(f"a pause of {self.retry:g} s between runs of punches; the least is {RETRY_LEAST:g} s")
        if self.pause_most < self.pause_least:
            raise ConfigError(f"pause_most is {self.pause_most:g} s; give at least pause_least, {self.pause_least:g} s")
        if self.retry_most < self.retry:
            object.__setattr__(self, "retry_most", self.retry)
