"""`scripts/natlab` as a user calls it: exit statuses, refusals, and a run whose programs fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab import EXIT_UNAVAILABLE
from runs.matrix import ALONE, CORE, QUICK, all_pairs, parse_pairs
from runs.scenario import Scenario, run_scenario

pytestmark = pytest.mark.natlab

NATLAB = Path(__file__).resolve().parents[2] / "scripts" / "natlab"
QUIET = {"relay": 0.0, "a": 0.0, "b": 0.0}


def _natlab(
    *arguments: str, before: tuple[str, ...] = (), python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    argv = [*before, python, str(NATLAB), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False)


def test_verify_prints_one_json_document() -> None:
    done = _natlab("verify", "--behaviour", "home-rst", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["behaviour"] == "home-rst"
    assert row["seen"] == row["expected"]
    assert row["seen"]["unsolicited"] == "rst"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("verify", "--behaviour", "homme"), "unknown NAT behaviour 'homme'"),
        (("run", "--listener-nat", "same-nat"), "share a box"),
        (("run", "--delay", "relay=fast"), "LINK=MILLISECONDS"),
        (("run", "--delay", "c=3"), "no link 'c'"),
        (("matrix", "--pairs", "home"), "LISTENER:DIALER"),
        (("exec",), "give a command"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_a_usage_error(arguments: tuple[str, ...], says: str) -> None:
    done = _natlab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_exec_runs_in_the_private_session() -> None:
    code = "import socket, sys; print([name for _, name in socket.if_nameindex()]); sys.exit(7)"
    done = _natlab("exec", "--", sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (7, "['lo']\n")


def test_no_namespaces_is_an_exit_status_of_its_own() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("util-linux's unshare is missing")
    limit = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'
    done = _natlab("verify", before=("unshare", "-Ur", "sh", "-c", limit, "sh"))
    assert done.returncode == EXIT_UNAVAILABLE
    assert "cannot make network namespaces" in done.stderr


def _python_for_anybody() -> str | None:
    """An interpreter, new enough, that a user without rights may run (a private one may sit in a private home)."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        code = f"import sys; open({str(NATLAB)!r}); sys.exit(sys.version_info < (3, 11))"
        argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", candidate, "-c", code]
        try:
            if subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0:
                return candidate
        except FileNotFoundError:
            return None
    return None


def test_rootless() -> None:
    if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split()[2] == "1":
        pytest.skip("not root: every other lab test runs rootless already")
    python = _python_for_anybody()
    if python is None:
        pytest.skip("no Python 3.11 that an unprivileged user may run (or no setpriv)")
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    done = _natlab("verify", "--behaviour", "fullcone", "--behaviour", "ipv6", before=user, python=python)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_program_that_fails_ends_in_a_report() -> None:
    report = run_scenario(Scenario(delay=QUIET), command=["sh", "-c", "echo no key here >&2; echo garbage; exit 5"])
    assert report.error == "the relay ended early"
    assert report.programs["relay"]["exit"] == 5
    assert report.programs["relay"]["stderr"] == "no key here"
    assert report.garbage == ["relay: garbage"]
    assert (report.outcome, report.direct, report.as_expected) == ("none", False, False)


def test_the_report_names_what_a_program_that_failed_said() -> None:
    said = '{"v":1,"event":"error","code":"PORT_IN_USE","message":"tcp/4001 is taken"}'
    report = run_scenario(Scenario(delay=QUIET), command=["sh", "-c", f"echo '{said}'; exit 2"])
    assert report.error == "the relay ended early: tcp/4001 is taken"


def test_logs_hold_the_evidence_and_no_keys(tmp_path: Path) -> None:
    report = run_scenario(
        Scenario(delay=QUIET, capture=True),
        logs=tmp_path,
        command=["sh", "-c", 'echo secret > "$5"; echo no >&2; exit 1', "sh"],
    )
    assert report.folder is not None
    names = {path.name for path in Path(report.folder).iterdir()}
    assert names == {"report.json", "events.jsonl.gz", "relay.log", "hosta.pcap", "hostb.pcap"}
    written = json.loads((Path(report.folder) / "report.json").read_text())
    assert written["v"] == 1
    assert set(written["topology"]["rulesets"]) == {"nata", "natb"}
    assert written["error"] == "the relay ended early"


def test_the_matrix_covers_every_core_pair() -> None:
    pairs = all_pairs()
    assert len(pairs) == len(set(pairs)) == len(CORE) ** 2 + len(ALONE)
    assert set(QUICK) <= set(pairs) | {("home-rst", "home-icmp")}
    assert parse_pairs("home:*") == [("home", dialer) for dialer in CORE]
