"""Bounds of the runs in the lab, each with its reason. Knows no namespace and no test."""

from __future__ import annotations

from typing import Final

EVENT_LINE_BYTES: Final = 256 * 1024
"""One JSON event line of a program. The longest known (`summary`) is a few KiB."""

EVENTS_PER_RUN: Final = 200_000
"""Events kept of one scenario run; at one `flow.stats` a second this is days."""

SCENARIO_SECONDS: Final = 60.0
"""Whole scenario unless told otherwise: reservation, relayed handshake, three punch attempts, traffic."""

RELAY_START_SECONDS: Final = 20.0
"""Start of the relay program until it listens: an interpreter with its imports, 1 to 2 s on a busy machine."""

RESERVATION_SECONDS: Final = 30.0
"""Start of the listener, connection to the relay and reservation: seconds even with 300 ms round trips."""

FAILURE_GRACE_SECONDS: Final = 2.0
"""One side may report success while the other's event is still on its way."""

PROOF_SECONDS: Final = 20.0
"""Until traffic has moved to the direct path, or its counters have risen once more."""

RELAY_REPORT_SECONDS: Final = 3.0
"""Until the relay's next `relay.stats`; scenarios ask for one every half second."""

RELAY_STILL_BYTES: Final = 0
"""Circuit payload that counts as stillness: the circuit was given back before the watch began."""

RELEASE_SECONDS: Final = 8.0
"""Until the circuit of an upgraded pair is given back (it is kept for 2 s, in case)."""

RETURN_SECONDS: Final = 90.0
"""From the healing of a cut to traffic on a direct path again: the puncher's first pause, and one run."""

TRIAL_SECONDS: Final = 40.0
"""Until a trial counts as failed: longer than a session waits for a path (30 s)."""

TRIAL_SETTLE_SECONDS: Final = 4.0
"""Between two trials, so that each starts from traffic that runs and a circuit that was given back."""

KEPT_SECONDS: Final = 15.0
"""From a direct connection to the session's word on it: two pings; or from a cut to traffic on the relay."""

HELD_SECONDS: Final = 3.0
"""Traffic watched while a session stays on the relay beside a direct connection."""

FASTER_SECONDS: Final = 60.0
"""From a direct path that has become faster to the session on it: it is measured again every 30 s."""

FLAPS: Final = 3
"""Cuts of the direct path one after the other: the hold-down is 1, 2, then 4 s."""
