"""What carries a session of the real programs: all paths in turn, one along with its NAT, and none to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import trials
from runs.eventlog import Seen
from runs.limits import RETURN_SECONDS
from runs.run import Run
from runs.scenario import Scenario, run_scenario
from runs.soak import run_soak, summary
from runs.soaks import soak

from tests.support.built import NOT_BUILT

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(300)]
pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

ALIVE = ("relay", "listener", "dialer")
LIFETIME = 22.0


def test_one_stream_goes_from_the_relay_to_tcp_to_quic_and_to_the_relay(tmp_path: Path) -> None:
    one = soak("T-006")
    report = json.loads((run_soak(one, tmp_path) / "report.json").read_text())
    assert report["passed"], summary(one, report)


def since(run: Run, at: float, name: str) -> list[Seen]:
    """The dialer's events of a name after that moment."""
    return list(run.log.find(name, who="dialer", match=lambda seen: seen.at > at))


def between(run: Run, at: float, name: str) -> list[Seen]:
    """Those of direct connections with the listener. A relay is connected directly too."""
    listener = run.target.rpartition("/")[2]
    return [one for one in since(run, at, name) if one.event["path"] == "direct" and one.event["peer"] == listener]


def followed(acts: dict[str, Callable[[Run], object]]) -> Callable[[Run], None]:
    """Acts one after the other; after each one messages go on, and the connection stands. A machine with much to do may
    be a moment late with the answer at the new address; then the session waits for it on the relay."""

    def act(run: Run) -> None:
        for name, fault in acts.items():
            at = run.log.now()
            fault(run)
            # What was in flight arrives now; after it, only a path that works brings more.
            time.sleep(0.3)
            assert trials.flowing(run, trials.received(run), 15.0), name
            if since(run, at, "session.switched"):
                deadline = time.monotonic() + RETURN_SECONDS
                while since(run, at, "session.switched")[-1].event["to"] != "direct":
                    assert time.monotonic() < deadline, (name, since(run, at, "session.switched"))
                    time.sleep(0.1)
        assert not between(run, 0.0, "connection.closed")

    return act


@pytest.mark.parametrize(
    ("listener", "acts"),
    [
        ("home", {"dialer": lambda run: run.lab.nat_reboot("b"), "listener": lambda run: run.lab.nat_reboot("a")}),
        ("public", {"reboot": lambda run: run.lab.nat_reboot("b"), "address": lambda run: run.lab.nat_address("b")}),
    ],
    ids=["reboots", "address"],
)
def test_a_quic_path_that_follows_is_not_torn_down(listener: str, acts: dict[str, Callable[[Run], object]]) -> None:
    scenario = Scenario(listener, "home", transport="quic", duration=1.0)
    report = run_scenario(scenario, hooks={"watched": followed(acts)})
    assert report.error == ""
    assert report.proven, (report.proof, report.watched)


def test_a_path_that_dies_by_the_clock_is_left_before_it_does() -> None:
    """The carrier's NAT is a router that drops all UDP between the two for a while, `LIFETIME` after each punch."""
    told: list[dict[str, object]] = []

    def strikes(run: Run) -> None:
        opened = 0.0
        for _ in range(3):
            assert run.log.wait(lambda after=opened: on_direct(run, after), RETURN_SECONDS, alive=ALIVE)  # type: ignore[misc]
            opened = on_direct(run, opened)
            time.sleep(max(0.0, opened + LIFETIME - run.log.now()))
            at = run.log.now()
            run.lab.cut_direct(protocol="udp")
            time.sleep(4.0)
            told[:] = [one.event for one in since(run, opened, "session.switched") if one.at < at + 4.0]
            run.lab.heal()

    scenario = Scenario(transport="quic", duration=0.5, listener_options=("--punch-retry", "1"))
    report = run_scenario(scenario, hooks={"watched": strikes})
    assert report.error == ""
    moves = [(one["to"], one["reason"], one["planned"]) for one in told if one["to"] == "relay"]
    assert moves == [("relay", "LIFETIME", True)], told
    assert report.proof["one_stream_throughout"]


def on_direct(run: Run, after: float) -> float:
    """When the direct connection in use was opened, should it be a later one; 0 before."""
    opened = between(run, after, "connection.opened")
    moved = [one for one in since(run, after, "session.switched") if one.event["to"] == "direct"]
    return opened[-1].at if opened and moved and moved[-1].at > opened[-1].at else 0.0
