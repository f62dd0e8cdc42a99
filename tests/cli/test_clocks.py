"""Clocks that jump: the wall clock, by which invitations end, and the steady one, by which everything else is timed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from punchbridge.access.store import AccessFile
from punchbridge.config.access import AccessLimits
from tests.cli.programs import LOCAL, LOOPBACK, Program, Run, Start, failed

YEARS = 1_000_000_000
"""Seconds, thirty years of them."""

HOUR = 3600


def test_an_invitation_ends_by_the_wall_clock_and_is_good_again_when_that_is_set_back(
    start: Start, run: Run, tmp_path: Path
) -> None:
    """The machine's clock is everybody's, so the end of the invitation is moved instead: the distance is the same."""
    file = AccessFile(tmp_path / "state" / "punchbridge" / "key.access", AccessLimits())
    ticket = start("expose", "127.0.0.1:1", *LOCAL).line()

    def clock_is(ahead: int) -> None:
        """Of the moment at which the invitation ends."""
        until = int(time.time()) - ahead
        file.edit(
            lambda records: (
                None,
                replace(records, invitations=tuple(replace(one, expires=until) for one in records.invitations)),
            )
        )

    clock_is(HOUR)
    failed(run("ping", ticket, "--count", "1", *LOCAL), 7, "the invitation has expired")
    clock_is(-HOUR)
    assert run("ping", ticket, "--count", "1", *LOCAL)[0] == 0
    clock_is(HOUR)
    assert run("ping", ticket, "--count", "1", *LOCAL)[0] == 0  # who was let in stays so


def steady(ahead: int) -> tuple[str, ...]:
    """How a program is run whose steady clocks are so many seconds ahead; the test is skipped where that is not to be
    had."""
    prefix = ("unshare", "--time", "--monotonic", str(ahead), "--boottime", str(ahead), "--fork", "--kill-child", "--")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no time namespaces here")
    return prefix


def test_the_steady_clocks_of_two_machines_have_nothing_to_do_with_each_other(
    environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    prefix = (*steady(YEARS), sys.executable, "-m", "punchbridge")
    relay = Program(("relay", "--listen", LOOPBACK, "--lan", "--json"), environment, tmp_path, prefix)
    server = None
    try:
        addr = relay.event("relay.listening")["addrs"][0]
        server = Program(("expose", "127.0.0.1:1", "--relay", addr, *LOCAL), environment, tmp_path, prefix)
        assert run("ping", server.line(), "--count", "2", "--interval", "0.2", *LOCAL)[0] == 0
    finally:
        for one in (relay, server):
            if one is not None:
                one.kill()


def test_a_connection_outlives_a_server_that_stood_still(start: Start, tmp_path: Path) -> None:
    """To the program the steady clock has jumped: every time-out has passed at once when it goes on."""
    path = tmp_path / "s"
    with echo() as backend:
        server = start("expose", backend, *LOCAL)
        forward = start("forward", server.line(), "--bind", f"unix:{path}", "--json", *LOCAL)
        forward.event("local.listening", bind=f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(path))
            assert said(client, b"before")
            server.process.send_signal(signal.SIGSTOP)
            client.sendall(b"meanwhile")
            time.sleep(5)  # longer than a carrier may be silent
            server.process.send_signal(signal.SIGCONT)
            assert heard(client, b"meanwhile")
            assert said(client, b"after")


def said(client: socket.socket, words: bytes) -> bool:
    client.sendall(words)
    return heard(client, words)


def heard(client: socket.socket, words: bytes) -> bool:
    got = b""
    while len(got) < len(words) and (data := client.recv(4096)):
        got += data
    return got == words


@contextmanager
def echo() -> Iterator[str]:
    """A server on loopback that says what it hears, and where it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    peer, _ = listener.accept()
                    threading.Thread(target=answer, args=(peer,), daemon=True).start()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def answer(peer: socket.socket) -> None:
    with peer:
        while data := peer.recv(4096):
            peer.sendall(data)
