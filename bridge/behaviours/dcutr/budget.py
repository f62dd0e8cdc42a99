"""What punches may dial, over whichever transport: one budget for the node, and each attempt's share of it.

It joins what the candidates know of a peer with what `punchbridge.reach.dials` allows; it dials nothing.
"""

from __future__ import annotations

from punchbridge.behaviours.dcutr.attempts import Attempt
from punchbridge.behaviours.dcutr.candidates import Candidates
from punchbridge.config import PunchLimits
from punchbridge.reach.dials import AttemptDials, DialBudget
from punchbridge.transport.base import Connection

__all__ = ["Budget"]


class Budget:
    """The dials of all punches of one node. `attempt_timeout`: seconds that an attempt dials."""

    def __init__(self, candidates: Candidates, limits: PunchLimits, attempt_timeout: float) -> None:
        self._candidates = candidates
        self._dials = DialBudget(limits, attempt_timeout)

    def of(self, attempt: Attempt, circuit: Connection) -> AttemptDials:
        """What an attempt that is arranged on this circuit may dial over one transport."""
        origin, attested = self._candidates.origin(circuit), self._candidates.attested(circuit)
        # The plain dials before the exchange belong to the first attempt.
        before = attempt.spent.dialled if attempt.number <= 1 else ()
        return AttemptDials(self._dials, attempt.spent, origin, attested, before)
