"""`punchbridge relay`, `expose` and `forward` as programs on loopback, told by their JSON lines which path was taken.

For clients and servers that know nothing of the bridge. Synchronous, with a reader thread for each program.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreign.build import REPOSITORY
from foreign.peer import PeerFailed, end

LOCAL = ("--listen", "/ip4/127.0.0.1/tcp/0", "--lan", "--json")
START_SECONDS = 30.0
"""Interpreters and imports on a busy machine included."""
TOLD_SECONDS = 5.0
"""From what a client saw until the program's line on it is read."""
NO_CAPS = ("--circuit-bytes", "0", "--circuit-seconds", "0")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody listens there (proc_net_tcp(5), state 0A); a connection to find out would be carried."""
    lines = (line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:])
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in lines)


class Program:
    """A process; `events` are the JSON objects of its stdout so far, `errors` the last lines of its stderr."""

    def __init__(self, argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.name = " ".join(Path(word).name for word in argv[:4])
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with contextlib.suppress(ValueError), self._changed:
                self.events.append(json.loads(text))
                self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.errors.append(text.rstrip())
            del self.errors[:-50]

    def find(self, name: str) -> list[dict[str, Any]]:
        return [one for one in list(self.events) if one.get("event") == name]

    def wait(self, name: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The first event of that name. Raises PeerFailed when it does not come."""
        self.until(lambda: bool(self.find(name)), f"no {name}", seconds)
        return self.find(name)[0]

    def until(self, holds: Callable[[], bool], otherwise: str, seconds: float = START_SECONDS) -> None:
        """Waits for something that this program brings about. Raises PeerFailed with its last words."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not holds():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise PeerFailed(f"{self.name}: {otherwise}; {' | '.join(self.errors[-5:])}")
                self._changed.wait(0.05)

    def close(self) -> None:
        """SIGTERM, then SIGKILL."""
        self.process.terminate()
        end(self.process, self._threads, 12.0)


class Tunnel(contextlib.ExitStack):
    """A local `port` that leads to a local server's port over one path, `direct` or `relay`; closing it ends all."""

    def __init__(self, path: str, server_port: int, *relay_options: str) -> None:
        super().__init__()
        self.path = path
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            home = self.enter_context(tempfile.TemporaryDirectory(prefix="pbi-"))
            target = self._expose(home, server_port, relay_options)
            self.port = free_port()
            options = ("--path", "relay", "--no-p2p") if path == "relay" else ("--path", "direct")
            self.forward = self._start(home, "forward", target, "--bind", f"127.0.0.1:{self.port}", *options)
            self.forward.until(lambda: listens(self.port), "did not listen")
            undo.pop_all()

    def _expose(self, home: str, server_port: int, relay_options: Sequence[str]) -> str:
        place = f"127.0.0.1:{server_port}"
        if self.path == "direct":
            started = self._start(home, "expose", place, "--open").wait("node.started")
            return f"{started['listen'][0]}/p2p/{started['peer_id']}"
        relay = self._start(home, "relay", *relay_options).wait("relay.listening")["addrs"][0]
        exposed = self._start(home, "expose", place, "--relay", relay, "--no-p2p", "--open")
        address: str = exposed.wait("reservation.accepted")["addrs"][0]
        return address

    def _start(self, home: str, *arguments: str) -> Program:
        env = {"PYTHONPATH": str(REPOSITORY), "HOME": home, "XDG_STATE_HOME": home, "XDG_RUNTIME_DIR": home}
        program = Program([sys.executable, "-m", "punchbridge", *arguments, *LOCAL], env=env)
        self.callback(program.close)
        return program

    def switches(self, since: int = 0) -> list[dict[str, Any]]:
        """What carried the sessions of this tunnel, oldest first."""
        return self.forward.find("session.switched")[since:]

    def check_path(self, since: int, idle: bool = False) -> str:
        """After use: something was carried (unless `idle` is right too), and all of it on this tunnel's path.

        Returns a note on the carriers.
        """
        if not idle:
            self.forward.until(lambda: bool(self.switches(since)), "told of no session", TOLD_SECONDS)
        taken = self.switches(since)
        others = [one for one in taken if one["to"] != self.path]
        assert not others, others
        opened = sum(one["reason"] == "OPENED" for one in taken)
        moved = len(taken) - opened
        return f"moved to {moved} further circuit{'s' * (moved > 1)}" if moved else ""
