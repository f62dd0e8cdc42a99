"""DCUtR: direct connections by a simultaneous open that is arranged over a relay (specs/relay/DCUtR.md)."""

from __future__ import annotations

from punchbridge.behaviours.dcutr.service import Dcutr
from punchbridge.reach.punching import PunchOutcome

__all__ = ["Dcutr", "PunchOutcome"]
