"""One peer process: orders go in as JSON lines, answers and events come out. Knows no implementation.

Synchronous, with a reader thread for each process, because the NAT lab is; nothing here is timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from foreign.build import REPOSITORY, command

START_SECONDS = 30.0
"""Interpreters and imports on a busy machine included."""
ORDER_SECONDS = 75.0
"""More than the 60 s after which the peers themselves give up."""
MAX_EVENTS = 20_000
TCP, QUIC = "tcp", "quic-v1"
ANY = {TCP: "/ip4/127.0.0.1/tcp/0", QUIC: "/ip4/127.0.0.1/udp/0/quic-v1"}
"""What a peer listens on, by the transport, that is told nothing else."""

Popen = Callable[..., "subprocess.Popen[str]"]
Event = dict[str, Any]


def transport_of(addr: str) -> str:
    """The transport of an address that names one."""
    return QUIC if f"/{QUIC}" in addr else TCP


class PeerFailed(RuntimeError):
    """A peer answered an order with an error, died, or did not answer in time."""


class Peer:
    """A running peer. `id`, `addrs` (ending in /p2p/ID) and `version` are what it said when it was ready."""

    def __init__(self, kind: str, *flags: str, popen: Popen = subprocess.Popen) -> None:
        self.kind = kind
        self.events: list[Event] = []
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._number = 0
        self._ended = False
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
        self.process = popen(
            [*command(kind), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=env,
        )
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()
        ready = self.wait("ready", timeout=START_SECONDS)
        self.id: str = ready["peer"]
        self.addrs: list[str] = ready["addrs"]
        self.version: str = ready["version"]

    def __repr__(self) -> str:
        return f"<{self.kind} peer {self.process.pid}>"

    @property
    def addr(self) -> str:
        return self.addrs[0]

    @property
    def alive(self) -> bool:
        return not self._ended

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                self.errors.append(text.rstrip())
                continue
            if "id" in line and ("ok" in line or "error" in line):
                self._answered(line)
            elif len(self.events) < MAX_EVENTS:
                with self._changed:
                    self.events.append({**line, "at": time.monotonic()})
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(PeerFailed(f"the {self.kind} peer ended: {self.error_tail()}"))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.errors.append(text.rstrip())
            del self.errors[:-200]

    def error_tail(self) -> str:
        return " | ".join(self.errors[-5:])

    def _answered(self, line: Mapping[str, Any]) -> None:
        future = self._waiting.pop(line["id"], None)
        if future is None or future.done():
            return
        if "error" in line:
            future.set_exception(PeerFailed(f"{self.kind}: {line['error']}"))
        else:
            future.set_result(line["ok"] or {})

    def start(self, do: str, **given: Any) -> Future[dict[str, Any]]:
        """Gives an order without waiting for its answer."""
        future: Future[dict[str, Any]] = Future()
        with self._changed:
            self._number += 1
            number = self._number
            self._waiting[number] = future
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"id": number, "do": do, **given}) + "\n")
            self.process.stdin.flush()
        except OSError as problem:
            raise PeerFailed(f"the {self.kind} peer takes no orders: {problem}; {self.error_tail()}") from None
        return future

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """Gives an order and returns the answer. Raises PeerFailed with what the peer said."""
        try:
            return self.start(do, **given).result(ORDER_SECONDS)
        except TimeoutError:
            raise PeerFailed(f"{self.kind}: no answer to {do} within {ORDER_SECONDS:g} s") from None

    def find(self, name: str, **match: Any) -> list[Event]:
        """Events so far with this name and these fields."""
        wanted = {"event": name, **match}
        return [one for one in list(self.events) if all(one.get(key) == value for key, value in wanted.items())]

    def wait(self, name: str, timeout: float = 15.0, count: int = 1, **match: Any) -> Event:
        """The `count`-th such event. Raises PeerFailed when it does not come in time or the peer ends."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := self.find(name, **match)) < count:
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    what = "ended" if self._ended else f"said nothing of it within {timeout:g} s"
                    raise PeerFailed(f"{self.kind}: waited for {name} {match or ''}; it {what}. {self.error_tail()}")
                self._changed.wait(left)
        return found[count - 1]

    def hang_up(self) -> None:
        """Closes its stdin, at which a peer ends; `close` waits for that."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def close(self) -> None:
        """Ends the process: stdin first, then SIGKILL."""
        self.hang_up()
        end(self.process, self._threads, 2.0)


def end(process: subprocess.Popen[str], readers: Iterable[threading.Thread], patience: float) -> None:
    """Waits `patience` seconds for a process that was asked to end, kills it then, and closes what was read of it."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for reader in readers:
        reader.join(5.0)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class Pool:
    """Peers that are kept from one row to the next. A context manager; leaving it ends them all."""

    def __init__(self, popen: Popen = subprocess.Popen, transport: str = TCP) -> None:
        """`transport`: of the address that a peer listens on unless its flags name one; nobody has another then."""
        self._popen = popen
        self.transport = transport
        self._peers: dict[tuple[str, ...], Peer] = {}
        self.versions: dict[str, str] = {}
        """Of every kind that was started."""
        self._kept: dict[Sequence[object], Any] = {}
        self._endings = contextlib.ExitStack()
        self.memory: dict[Sequence[object], Any] = {}
        """What rows found out and other rows may use, such as reservations; forgotten with the pool."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: str, part: str, *flags: str) -> Peer:
        """The peer of this kind that plays this part, started when there is none or it died."""
        key = (kind, part, *flags)
        peer = self._peers.get(key)
        if peer is None or not peer.alive:
            if peer is not None:
                peer.close()
            listen = () if {"-listen", "-serve"} & set(flags) else ("-listen", ANY[self.transport])
            peer = self._peers[key] = Peer(kind, *listen, *flags, popen=self._popen)
            self.versions[kind] = peer.version
        return peer

    def over(self, transport: str) -> Pool:
        """Peers of their own for this transport, which end with this pool; their versions are noted here."""
        if transport == self.transport:
            return self

        def make() -> Pool:
            other = Pool(self._popen, transport)
            other.versions = self.versions
            return other

        pool: Pool = self.keep(("over", transport), make, Pool.close)
        return pool

    def keep(self, key: Sequence[object], make: Callable[[], Any], end: Callable[[Any], object]) -> Any:
        """Something other than a peer that rows share, made at its first use and ended with the pool."""
        if key not in self._kept:
            self._kept[key] = made = make()
            self._endings.callback(end, made)
        return self._kept[key]

    def close(self) -> None:
        self._endings.close()
        self._kept.clear()
        for peer in self._peers.values():
            peer.hang_up()
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self.memory.clear()
