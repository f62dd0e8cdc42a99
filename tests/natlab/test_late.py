"""One side dials later than the other, over NATs whose mappings are open already from an attempt that failed.

The early side's SYN then passes the late side's NAT. Unless the late side's earlier dial is still outstanding it meets
the listener, whose answer the NAT drops (another sequence number than the dial's), and the half-open entry holds the
4-tuple against every further dial.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab
from natlab_programs import Watched, start_relay

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(120)]

LATE_SECONDS = 1.3
"""More than one way of a packet and one SYN's retransmission, less than the patience with a silent socket."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(listener_nat="home", dialer_nat="home", delay={"relay": 15, "a": 10, "b": 20}) as made:
        yield made


@pytest.mark.parametrize("late", ["dialer", "listener"])
def test_a_late_side_s_earlier_dial_takes_the_early_side_s_syn(lab: Lab, tmp_path: Path, late: str) -> None:
    _, address = start_relay(lab, tmp_path / "r")
    lab.cut_direct()  # the first attempt fails, and leaves both mappings open
    listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address)
    target = listener.wait("reservation.accepted", 20)["addrs"][0]
    dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--timeout", "60")
    listener.wait("punch.failed", 40, attempt=1)
    listener.wait("punch.started", 10, attempt=2)  # SYNC leaves now and is half a round trip under way
    stopped = {"dialer": dialer, "listener": listener}[late].process
    if late == "listener":
        time.sleep(0.01)  # its SYNC must leave before it stops; its own dial follows 60 ms later
    stopped.send_signal(signal.SIGSTOP)
    lab.heal()
    time.sleep(LATE_SECONDS)  # being late is the fault under test
    stopped.send_signal(signal.SIGCONT)
    for program in (listener, dialer):
        done = program.wait("punch.succeeded", 30)
        assert done["attempt"] in (1, 2)
        assert not [
            one for one in program.events if one["event"] == "punch.failed" and "EADDRNOTAVAIL" in str(one["seen"])
        ]
