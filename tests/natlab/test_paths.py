"""The dialer's node moves with its path: to the direct connection, back to the relay when that dies, and again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab

from tests.natlab.natlab_programs import Watched, start_relay

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(150)]

GOSSIP = ("--gossip-interval", "0.2", "--stats-interval", "0.3")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(listener_nat="home", dialer_nat="home", delay={"relay": 15, "a": 10, "b": 20}) as made:
        yield made


def test_back_to_the_relay_and_direct_again(lab: Lab, tmp_path: Path) -> None:
    relay, address = start_relay(lab, tmp_path / "r", "--circuit-bytes", "0", "--circuit-seconds", "0")
    listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address, *GOSSIP)
    target = listener.wait("reservation.accepted", 20)["addrs"][0]
    dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--timeout", "60", *GOSSIP)

    direct = dialer.wait("path.changed", 40, to="direct")
    dialer.wait_for_traffic(10)

    # TCP_USER_TIMEOUT and the Yamux ping find the silent cut; a reset finds it at once.
    lab.cut_direct(mode="rst")
    fallen = dialer.wait("path.changed", 60, after=direct["seq"], to="relay")
    dialer.wait_for_traffic(10)
    assert dialer.process.poll() is None

    lab.heal()
    again = dialer.wait("path.changed", 60, after=fallen["seq"], to="direct")
    dialer.wait_for_traffic(10)

    relay.process.send_signal(signal.SIGKILL)
    dialer.wait_for_traffic(10)
    assert dialer.counted() > 0
    assert not [one for one in dialer.events if one["event"] == "path.changed" and one["seq"] > again["seq"]]

    dialer.process.send_signal(signal.SIGTERM)
    assert dialer.wait("summary", 20)["path"] == "direct"
    assert dialer.process.wait(10) == 0


def test_require_direct_ends_with_4_and_the_verdict(tmp_path: Path) -> None:
    with Lab(listener_nat="symmetric", dialer_nat="symmetric") as lab:
        _, address = start_relay(lab, tmp_path / "r")
        listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address)
        target = listener.wait("reservation.accepted", 20)["addrs"][0]
        dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--require-direct", "--timeout", "40")
        failure = dialer.wait("error", 90)
        assert failure["code"] == "RELAYED"
        verdict = dialer.wait("punch.failed", 1)["code"]
        assert verdict in failure["message"]
        assert dialer.wait("summary", 10)["exit_code"] == 4
        assert dialer.process.wait(10) == 4
