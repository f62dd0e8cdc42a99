"""What goes to stdout, what to stderr, and how JSON lines and a terminal look."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from punchbridge.cli.reference import catalogue
from tests.cli.programs import LOCAL, LOOPBACK, Program, Run, Start

ESCAPE = "\x1b["


def test_data_and_talk_are_apart(start: Start, relay: tuple[Program, str]) -> None:
    listener = start("listen", "--relay", relay[1], *LOCAL)
    target = listener.line()
    assert target.startswith(f"{relay[1]}/p2p-circuit/p2p/")
    code, stdout, stderr = start("dial", target, *LOCAL, "--duration", "1").ended()
    assert code == 0
    assert stdout == ""
    assert "handshake with" in stderr
    assert ESCAPE not in stderr
    code, stdout, stderr = listener.stop()
    assert code == 0
    assert stdout == target  # that line and nothing else
    assert f"punchbridge dial {target}" in stderr


def test_quiet_leaves_data(run: Run, relay: tuple[Program, str]) -> None:
    code, stdout, stderr = run("ping", relay[1], *LOCAL, "-c", "1", "--quiet")
    assert (code, stderr) == (0, "")
    assert re.fullmatch(r"direct 127\.0\.0\.1:\d+ \d+\.\d ms", stdout)


def test_json_lines(start: Start, relay: tuple[Program, str]) -> None:
    listener = start("listen", "--relay", relay[1], *LOCAL, "--json", "--gossip-interval", "0.1")
    accepted = listener.event("reservation.accepted")
    dialer = start(
        "dial", accepted["addrs"][0], *LOCAL, "--no-p2p", "--json", "--stats-interval", "0.2",
        "--gossip-interval", "0.1", "--duration", "2",
    )  # fmt: skip
    code, _, stderr = dialer.ended()
    assert (code, stderr) == (0, "")
    seen = dialer.events
    assert [one["seq"] for one in seen] == list(range(len(seen)))
    assert all(one["v"] == 1 and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z", one["ts"]) for one in seen)
    assert seen[0]["event"] == "node.started"
    assert seen[-1]["event"] == "summary"
    known = catalogue()
    for one in seen:
        names = set(known[one["event"]].json_keys())
        assert set(one) == {"v", "seq", "ts", "event", *names}
    summary = seen[-1]
    assert (summary["exit_code"], summary["path"]) == (0, "relay")
    (flow,) = summary["detail"]["flows"].values()
    assert flow["sent"]["invTransactions"] > 0
    assert flow["received"]["invTransactions"] > 0
    moved = dialer.event("path.changed")
    assert (moved["from"], moved["to"]) == ("none", "relay")


def test_flag_beats_environment_beats_default(start: Start) -> None:
    relay = start("relay", "--json", PUNCHBRIDGE_LISTEN=LOOPBACK, PUNCHBRIDGE_RELAY_CIRCUITS="7")
    assert relay.event("node.started")["listen"][0].startswith("/ip4/127.0.0.1/")
    other = start("relay", "--json", "--listen", "/ip4/127.0.0.2/tcp/0", PUNCHBRIDGE_LISTEN=LOOPBACK)
    assert other.event("node.started")["listen"][0].startswith("/ip4/127.0.0.2/")


def test_key_from_environment(run: Run, tmp_path: Path) -> None:
    key = str(tmp_path / "mine")
    made = run("key", "new", PUNCHBRIDGE_KEY_FILE=key)
    shown = run("key", "show", "--key", key)
    assert made[0] == shown[0] == 0
    assert made[1] == shown[1]
    base58, cid = shown[1].splitlines()
    assert base58.startswith("12D3KooW")
    assert cid.startswith("bafzaa")


def test_reader_that_leaves_ends_the_program(start: Start, environment: dict[str, str], tmp_path: Path) -> None:
    """`punchbridge relay --json | head -1` must not go on for ever."""
    with subprocess.Popen(
        [sys.executable, "-m", "punchbridge", "listen", *LOCAL, "--json", "--stats-interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert "node.started" in program.stdout.readline()
        program.stdout.close()
        address = tmp_path / "unused"
        assert not address.exists()
        program.terminate()
        assert "Traceback" not in program.stderr.read()
        assert program.wait(20) in (0, 1)


def terminal(arguments: list[str], environment: dict[str, str], cwd: Path) -> str:
    """What a command writes to a terminal that is its stderr."""
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "punchbridge", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=inner,
        env=environment,
        cwd=cwd,
    ) as program:
        os.close(inner)
        written = b""
        while True:
            try:
                data = os.read(outer, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not data:
                break
            written += data
        program.wait(20)
    os.close(outer)
    return written.decode()


def test_terminal_gets_colours_and_progress(
    environment: dict[str, str], tmp_path: Path, relay: tuple[Program, str]
) -> None:
    plain = {**environment, "TERM": "xterm"}
    arguments = ["ping", relay[1], *LOCAL, "-c", "1"]
    assert f"{ESCAPE}2K" in terminal(arguments, plain, tmp_path)
    failing = ["ping", relay[1].rsplit("/", 1)[0] + "/12D3KooWCVLPNH5tbjrw45dZ2N4SpUKd2SNZDyMMzUkHCQtqqYov", *LOCAL]
    assert f"{ESCAPE}31m" in terminal(failing, plain, tmp_path)
    assert f"{ESCAPE}31m" not in terminal(failing, {**plain, "NO_COLOR": "1"}, tmp_path)
    assert ESCAPE not in terminal(failing, {**plain, "TERM": "dumb", "NO_COLOR": "1"}, tmp_path)


@pytest.mark.parametrize("silent", ["listen", "dial"])
def test_no_p2p_of_either_side_keeps_the_path_on_the_relay(
    start: Start, relay: tuple[Program, str], silent: str
) -> None:
    """The one without the flag would punch, and would tell of any message of a punch that it got."""
    flags = {name: ("--no-p2p",) if name == silent else () for name in ("listen", "dial")}
    listener = start("listen", "--relay", relay[1], *LOCAL, *flags["listen"], "--json", "--gossip-interval", "0.1")
    target = listener.event("reservation.accepted")["addrs"][0]
    dialer = start(
        "dial", target, *LOCAL, *flags["dial"], "--json", "--gossip-interval", "0.1", "--stats-interval", "0.2",
        "--duration", "2",
    )  # fmt: skip
    assert dialer.ended()[0] == 0
    assert listener.stop()[0] == 0
    assert [one for one in dialer.events if one["event"].startswith(("punch.", "p2p_upgrade"))] == []
    told = [one for one in listener.events if one["event"].startswith("punch.")]
    assert {one.get("code") for one in told} <= ({"PEER_UNSUPPORTED"} if silent == "dial" else set())
    peer = dialer.event("node.started")["peer_id"]
    opened = [one for one in listener.events if one["event"] == "connection.opened" and one["peer"] == peer]
    assert {one["path"] for one in opened} == {"relay"}
    (flow,) = dialer.events[-1]["detail"]["flows"].values()
    assert flow["received"]["invTransactions"] > 0
    assert dialer.events[-1]["path"] == "relay"
