"""Faults while gossip runs: each breaks the network in one way and takes the time until messages arrive again.

A trial starts and ends with traffic at both ends. It measures and reports; the bounds are those the project promises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runs.limits import RETURN_SECONDS, TRIAL_SECONDS, TRIAL_SETTLE_SECONDS
from runs.run import SIDE, Run

ALIVE = ("listener", "dialer")


@dataclass(frozen=True, slots=True)
class Trial:
    """`bound`: seconds from the moment the network could carry again until messages arrive at both ends."""

    name: str
    about: str
    bound: float
    act: Callable[[Run], float]
    path: str = "direct"


def received(run: Run) -> dict[str, int]:
    """Messages received so far at both ends, by the latest flow.stats."""
    return {who: counts["received"] for who, counts in run.flows().items()}


def on_path(run: Run, path: str) -> bool:
    """Both programs' latest word on their traffic's path is this one."""
    last = [run.log.last("path.changed", who=who) for who in SIDE]
    return all(one is not None and one.event.get("to") == path for one in last)


def flowing(run: Run, since: dict[str, int], timeout: float) -> bool:
    """Until both ends have received more than at `since`."""
    return run.log.wait(
        lambda: all(received(run)[who] > since[who] for who in SIDE), timeout, alive=ALIVE, step=0.05
    )  # fmt: skip


def _cut(run: Run) -> float:
    run.lab.cut_direct()
    return run.log.now()


def _reset(run: Run) -> float:
    run.lab.cut_direct(mode="rst")
    return run.log.now()


def _reboot(side: str) -> Callable[[Run], float]:
    def act(run: Run) -> float:
        run.lab.nat_reboot(side)
        return run.log.now()

    return act


def _address(run: Run) -> float:
    run.lab.nat_address("b")
    return run.log.now()


def _link_down(run: Run) -> float:
    run.lab.link_down("b", 5.0)
    return run.log.now()


def _relay_restart(run: Run) -> float:
    run.restart_relay()
    return run.log.now()


DIRECT = (
    Trial("silent-cut", "everything between the two hosts is dropped in silence", 2.0, _cut),
    Trial("reset-cut", "everything between the two hosts is answered with a reset", 2.0, _reset),
    Trial("nat-reboot-dialer", "the dialer's NAT loses all mappings", 5.0, _reboot("b")),
    Trial("nat-reboot-listener", "the listener's NAT loses all mappings", 5.0, _reboot("a")),
    Trial("address-change", "the dialer's NAT gets another address from its provider", 5.0, _address),
    Trial("link-down-5s", "the dialer's link is down for 5 s", 5.0, _link_down),
)
RELAYED = (Trial("relay-restart", "the relay is killed and started again", 5.0, _relay_restart, "relay"),)


def conduct(run: Run, trials: tuple[Trial, ...]) -> list[dict[str, Any]]:
    """All trials, one after the other; between them the path of the trial is awaited again."""
    results = []
    for trial in trials:
        run.log.wait(lambda path=trial.path: on_path(run, path), RETURN_SECONDS, alive=ALIVE)  # type: ignore[misc]
        time.sleep(TRIAL_SETTLE_SECONDS)
        flows = run.flows()
        at = trial.act(run)
        run.mark(f"{trial.name}.done")
        # What was in flight arrives now; after it, only a path that works brings more.
        time.sleep(0.3)
        good = flowing(run, received(run), TRIAL_SECONDS)
        seconds = round(run.log.now() - at, 3)
        run.lab.heal()
        results.append(
            {
                "trial": trial.name,
                "about": trial.about,
                "bound_s": trial.bound,
                "seconds": seconds,
                "flowing": good,
                "within": good and seconds <= trial.bound,
                "flows_before": flows,
                "flows_after": run.flows(),
                "path_after": [run.log.last("path.changed", who=who).event["to"] for who in SIDE],  # type: ignore[union-attr]
            }
        )
    return results
