"""The NAT lab: real kernel NATs in network namespaces, with delay and loss, for the demo and the tests.

`Lab` builds and breaks networks and knows no punchbridge; `runs.scenario` runs the project's programs in it.
"""

from __future__ import annotations

from lab.behaviours import BEHAVIOURS, Behaviour, behaviour, direct_expected
from lab.lab import Lab, UplinkFound
from lab.session import EXIT_UNAVAILABLE, LabUnavailable

__all__ = [
    "BEHAVIOURS",
    "EXIT_UNAVAILABLE",
    "Behaviour",
    "Lab",
    "LabUnavailable",
    "UplinkFound",
    "behaviour",
    "direct_expected",
]
