"""The three programs on this machine's loopback, for places where no namespaces can be made.

No NAT is involved and nothing is proven about punching; it shows the programs, the relayed handshake, the move to
a direct connection and gossip that goes on when the relay is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lab.limits import STOP_SECONDS

from runs.eventlog import EventLog, Program, ProgramEnded, Seen
from runs.limits import PROOF_SECONDS, RELAY_START_SECONDS, RESERVATION_SECONDS, SCENARIO_SECONDS
from runs.records import REPOSITORY
from runs.scenario import program_command

HOST = "127.0.0.1"


class Screen(Protocol):
    """Where the story is told."""

    def say(self, who: str, text: str) -> None: ...
    def event(self, seen: Seen) -> None: ...


class Loopback:
    """Starts and ends programs on this machine, with the two calls that `Program` makes of a lab."""

    def popen(self, host: str, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, **options)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(STOP_SECONDS)
        process.kill()
        return process.wait()


def demo(screen: Screen, duration: float, why: str) -> int:
    """Runs the story on loopback; exit status 0 when gossip survived the relay's end, else 1."""
    screen.say("lab", f"NO NAT INVOLVED: the programs run on loopback ({why})")
    with tempfile.TemporaryDirectory(prefix="punchbridge-demo-") as folder:
        log = EventLog(on_event=screen.event)
        programs: dict[str, Program] = {}
        try:
            good = _story(screen, log, programs, Path(folder), duration)
        except ProgramEnded as problem:
            screen.say("lab", f"{problem}: {_tail(programs)}")
            good = False
        finally:
            for program in programs.values():
                program.stop()
            log.close()
    print("Gossip went on after the relay was killed. No NAT was involved." if good else "NOT SHOWN: see above.")
    return 0 if good else 1


def _tail(programs: Mapping[str, Program]) -> str:
    return " / ".join(filter(None, (program.error_tail(2) for program in programs.values())))


def _start(log: EventLog, programs: dict[str, Program], folder: Path, name: str, *arguments: str) -> None:
    home = folder / name
    home.mkdir(mode=0o700)
    env = {**os.environ, "XDG_STATE_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
    argv = [*program_command(), *arguments, "--key", str(home / "key"), "--new-key", "--json"]
    lab: Any = Loopback()
    programs[name] = Program(lab, log, name, "loopback", argv, folder, env)


def _messages(log: EventLog) -> int:
    last = log.last("flow.stats", who="dialer")
    return 0 if last is None else sum(sum((last.event.get(way) or {}).values()) for way in ("sent", "received"))


def _story(screen: Screen, log: EventLog, programs: dict[str, Program], folder: Path, duration: float) -> bool:
    _start(log, programs, folder, "relay", "relay", "--listen", f"/ip4/{HOST}/tcp/0", "--lan")
    if not log.wait(lambda: log.last("relay.listening"), RELAY_START_SECONDS, alive=["relay"]):
        return False
    listening = log.last("relay.listening")
    assert listening is not None
    relay = str(listening.event["addrs"][0])
    listen = ("--listen", f"/ip4/{HOST}/tcp/0", "--lan", "--gossip-interval", "0.25", "--stats-interval", "0.2")
    _start(log, programs, folder, "listener", "listen", "--relay", relay, *listen)
    if not log.wait(lambda: log.last("reservation.accepted"), RESERVATION_SECONDS, alive=["relay", "listener"]):
        return False
    accepted = log.last("reservation.accepted")
    assert accepted is not None
    whole = SCENARIO_SECONDS + 2 * duration + PROOF_SECONDS
    target = str(accepted.event["addrs"][0])
    _start(log, programs, folder, "dialer", "dial", target, *listen, "--duration", f"{whole:g}")
    alive = ["relay", "listener", "dialer"]
    moved = log.wait(lambda: log.last("path.changed", who="dialer"), SCENARIO_SECONDS, alive=alive)
    screen.say("lab", "the path is direct" if moved else "the path stayed on the relay")
    time.sleep(duration)
    screen.say("lab", "now the relay is killed (SIGKILL); gossip must go on")
    programs["relay"].kill()
    before = _messages(log)
    time.sleep(duration)
    return log.wait(lambda: _messages(log) > before, PROOF_SECONDS, alive=["listener", "dialer"])
