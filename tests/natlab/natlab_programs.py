"""The real programs in a lab, started by a test that watches their JSON events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lab import Lab

REPOSITORY = Path(__file__).resolve().parents[2]


class Watched:
    """A program in the lab, its JSON events as they come."""

    def __init__(self, lab: Lab, host: str, home: Path, *arguments: str) -> None:
        home.mkdir()
        environment = {**os.environ, "XDG_STATE_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
        self.lab = lab
        self.process = lab.popen(
            host,
            [sys.executable, "-m", "punchbridge", *arguments, "--json", "--key", str(home / "key"), "--new-key"],
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


def start_relay(lab: Lab, home: Path, *arguments: str) -> tuple[Watched, str]:
    """A relay program, and its address with /p2p/ID."""
    relay = Watched(lab, "relay", home, "relay", *arguments)
    relay_id = relay.wait("relay.listening", 20)["peer_id"]
    return relay, f"/ip4/{lab.hosts['relay'].address}/tcp/4001/p2p/{relay_id}"
