"""The dialer's node moves with its path: to the direct connection, back to the relay when that dies, and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(150)]

REPOSITORY = Path(__file__).resolve().parents[2]
GOSSIP = ("--gossip-interval", "0.2", "--stats-interval", "0.3")


class Watched:
    """A program in the lab, its JSON events as they come."""

    def __init__(self, lab: Lab, host: str, home: Path, *arguments: str) -> None:
        home.mkdir()
        environment = {**os.environ, "XDG_STATE_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
        self.lab = lab
        self.process = lab.popen(
            host,
            [sys.executable, "-m", "node.cli", *arguments, "--json", "--key", str(home / "key")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()

    def wait(self, name: str, seconds: float, after: int = -1, **match: Any) -> dict[str, Any]:
        """The first event of that name and fields whose `seq` is above `after`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for one in self.events:
                    if one["event"] == name and one["seq"] > after and all(one[key] == match[key] for key in match):
                        return one
                left = deadline - time.monotonic()
                tail = "\n".join(json.dumps(one) for one in self.events[-12:])
                assert left > 0, f"no {name} {match} within {seconds} s; last events:\n{tail}"
                self._changed.wait(left)

    def counted(self) -> int:
        """Messages received so far, by the latest flow.stats."""
        return next((sum(one["received"].values()) for one in reversed(self.events) if one["event"] == "flow.stats"), 0)

    def wait_for_traffic(self, seconds: float) -> None:
        """Until the counters have risen; they never step back."""
        before, last = self.counted(), self.events[-1]["seq"]
        deadline = time.monotonic() + seconds
        while self.counted() <= before:
            last = self.wait("flow.stats", deadline - time.monotonic(), after=last)["seq"]
        assert self.counted() > before


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(listener_nat="home", dialer_nat="home", delay={"relay": 15, "a": 10, "b": 20}) as made:
        yield made


def test_back_to_the_relay_and_direct_again(lab: Lab, tmp_path: Path) -> None:
    relay = Watched(lab, "relay", tmp_path / "r", "relay", "--circuit-bytes", "0", "--circuit-seconds", "0")
    relay_id = relay.wait("relay.listening", 20)["peer_id"]
    address = f"/ip4/{lab.hosts['relay'].address}/tcp/4001/p2p/{relay_id}"
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
        relay = Watched(lab, "relay", tmp_path / "r", "relay")
        relay_id = relay.wait("relay.listening", 20)["peer_id"]
        address = f"/ip4/{lab.hosts['relay'].address}/tcp/4001/p2p/{relay_id}"
        listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address)
        target = listener.wait("reservation.accepted", 20)["addrs"][0]
        dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--require-direct", "--timeout", "40")
        failure = dialer.wait("error", 90)
        assert failure["code"] == "RELAYED"
        verdict = dialer.wait("punch.failed", 1)["code"]
        assert verdict in failure["message"]
        assert dialer.wait("summary", 10)["exit_code"] == 4
        assert dialer.process.wait(10) == 4
