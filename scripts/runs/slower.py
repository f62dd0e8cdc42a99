"""A direct path that is slower than the relayed one, then faster, then one that fails again and again.

Conducts that part of a scenario and reports what the dialer's session did; the verdict is the report's.
"""

from __future__ import annotations

import time
from typing import Any

from lab import proof

from runs import trials
from runs.eventlog import Seen
from runs.limits import FASTER_SECONDS, FLAPS, HELD_SECONDS, KEPT_SECONDS, RELEASE_SECONDS, RETURN_SECONDS
from runs.run import Run

ALIVE = ("relay", "listener", "dialer")


def _kept(run: Run, reason: str, since: float) -> Seen | None:
    return run.log.last(
        "session.kept", who="dialer", match=lambda one: one.at >= since and one.event["reason"] == reason
    )


def _switch(run: Run, since: float) -> Seen | None:
    """The session's first move to the direct path after that moment."""
    found = run.log.find("session.switched", who="dialer", match=lambda s: s.at >= since and s.event["to"] == "direct")
    return next(iter(found), None)


def _circuits(run: Run) -> int:
    """Those that the relay holds now."""
    opened, closed = (len(list(run.log.find(f"circuit.{what}", who="relay"))) for what in ("opened", "closed"))
    return opened - closed


def _moving(run: Run) -> bool:
    before = trials.received(run)
    return trials.flowing(run, before, HELD_SECONDS)


def conduct(run: Run) -> dict[str, Any]:
    """Called once both sides hold a direct connection that is slower than the relay by the scenario's `detour`."""
    stayed = run.log.wait(lambda: _kept(run, "SLOWER", 0.0), KEPT_SECONDS, alive=ALIVE)
    kept = _kept(run, "SLOWER", 0.0)
    run.mark("kept.on_relay")
    flows, first = run.flows(), run.sample()
    time.sleep(HELD_SECONDS)
    moving, last = _moving(run), run.sample()
    found: dict[str, Any] = {
        "detour_ms": run.scenario.detour,
        "kept": kept.as_json() if kept is not None else None,
        "relay_bytes": last["relay"] - first["relay"],
        "direct_bytes": last["direct"] - first["direct"],
        "flows_before": flows,
        "flows_after": run.flows(),
        "stayed": stayed and moving and _switch(run, 0.0) is None and last["relay"] - first["relay"] > 0,
    }
    faster = run.log.now()
    run.lab.set_detour(0.0)
    run.mark("direct.faster")
    run.log.wait(lambda: _switch(run, faster), FASTER_SECONDS, alive=ALIVE)
    switched = _switch(run, faster)
    found["switched"] = switched.as_json() if switched is not None else None
    found["seconds_to_direct"] = None if switched is None else round(switched.at - faster, 3)
    found["moved"] = switched is not None and switched.event["reason"] == "DIRECT"
    found["flaps"] = [_flap(run) for _ in range(FLAPS)]
    # What is watched next must find no circuit that is about to be given back.
    run.log.wait(lambda: _circuits(run) == 0, RELEASE_SECONDS, alive=ALIVE)
    found["held_down"] = any(one["held_s"] is not None for one in found["flaps"])
    return found


def _flap(run: Run) -> dict[str, Any]:
    """The direct path is cut in silence until traffic runs on the relay, and goes back once the hold-down is over."""
    run.log.wait(lambda: trials.on_path(run, "direct") and proof.direct_pairs(run.lab), RETURN_SECONDS, alive=ALIVE)
    at = run.log.now()
    run.lab.cut_direct()
    run.log.wait(lambda: trials.on_path(run, "relay"), KEPT_SECONDS, alive=ALIVE)
    run.lab.heal()
    relayed = run.log.now()
    run.log.wait(lambda: _switch(run, at), RETURN_SECONDS, alive=ALIVE)
    back, held = _switch(run, at), _kept(run, "HOLD_DOWN", at)
    return {
        "relayed_after_s": round(relayed - at, 3),
        "held_s": None if held is None else held.event["again_s"],
        "direct_after_s": None if back is None else round(back.at - at, 3),
        "waited": held is None or (back is not None and back.at - held.at >= held.event["again_s"] - 0.05),
    }
