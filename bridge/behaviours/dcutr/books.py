"""What the behaviour keeps about punches: the active one of each peer, and the exchanges counted on each circuit.

Plain values; nothing here decides.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import trio

from punchbridge.behaviours.dcutr.context import Facts
from punchbridge.behaviours.dcutr.policy import DcutrPolicy
from punchbridge.events import Role
from punchbridge.limits.punch import DCUTR_EXCHANGES_PER_MINUTE
from punchbridge.transport.base import Connection
from punchbridge.verdict import new_run

__all__ = ["ActivePunch", "Exchanges"]


@dataclass(eq=False)
class ActivePunch:
    """One active punch; there is at most one for each peer (D14)."""

    side: Role
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    direct: Connection | None = None
    """A direct connection that appeared meanwhile by other means."""
    facts: Facts | None = None
    """The attempt under way."""
    overtaken: bool = False
    """The peer has begun an attempt meanwhile: the next one if we answer, its own if we had opened this one."""

    def note(self, facts: Facts) -> None:
        self.facts = facts


@dataclass(eq=False)
class Exchanges:
    """The exchanges that the peer opened on one relayed connection."""

    count: int = 0
    run: int = 0
    """The run of the last exchange. The opener counts its attempts anew in each run; the number is not on the wire."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=DCUTR_EXCHANGES_PER_MINUTE))

    def admit(self, now: float, policy: DcutrPolicy) -> bool:
        """Counts an exchange; False when the peer has opened too many in the last minute."""
        if len(self.recent) == self.recent.maxlen and now - self.recent[0] < 60.0:
            return False
        self.count += 1
        if self.attempt(policy) == 1:
            self.run = new_run()
        self.recent.append(now)
        return True

    def attempt(self, policy: DcutrPolicy) -> int:
        """The number of the last exchange within its run, from 1."""
        return (self.count - 1) % policy.attempts + 1

    def pause(self, policy: DcutrPolicy) -> float:
        """Seconds that the opener, when it goes by our policy, waits after the run of the last exchange."""
        runs_before = (self.count - 1) // policy.attempts
        return min(policy.retry_first * 2.0 ** min(runs_before, 32), policy.retry_max)
