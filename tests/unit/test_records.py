"""Records of runs: raw lines are kept once and compressed, and a plain run leaves every tracked file alone."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

import pytest
from runs import records
from runs.eventlog import EventLog
from test_house import ROOT

RECORDED = sorted(path.parent for path in (ROOT / "logs").glob("2*/report.json"))


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    records.add_options(parser, "demo")
    return parser.parse_args(arguments)


def test_a_run_is_recorded_where_git_does_not_look() -> None:
    logs = options().logs
    assert not records.is_committed(logs)
    names = [f"{logs}/20260101T000000Z-s-001/report.json", f"{logs}/20260101T000000Z-s-001-summary.md"]
    told = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.stdout.split() == names


def test_only_the_record_flag_asks_for_the_committed_records() -> None:
    assert records.is_committed(options("--record").logs)
    with pytest.raises(SystemExit):
        options("--record", "--logs", "elsewhere")


@pytest.mark.parametrize("program", ["demo", "scenarios", "torture"])
def test_programs_that_record_runs_have_that_flag(program: str) -> None:
    arguments = ["run", "--help"] if program == "scenarios" else ["--help"]
    done = subprocess.run([ROOT / "scripts" / program, *arguments], capture_output=True, text=True, check=True)
    assert "--record" in done.stdout
    assert f"logs/tmp-{program}/" in done.stdout


def test_events_are_compressed_once_the_log_is_closed(tmp_path: Path) -> None:
    log = EventLog(tmp_path / records.EVENTS)
    log.add("relay", 1, '{"event": "relay.listening"}')
    log.add("dialer", 7, '{"event": "summary", "exit_code": 0}')
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl.gz"]
    found = list(records.events(tmp_path))
    assert [(one["who"], one["line"], one["event"]) for one in found] == [
        ("relay", 1, "relay.listening"),
        ("dialer", 7, "summary"),
    ]
    assert found[1]["exit_code"] == 0


def test_equal_lines_are_equal_bytes(tmp_path: Path) -> None:
    packed = []
    for name, time in (("one", 1_000_000_000), ("two", 1_700_000_000)):
        path = tmp_path / name
        path.write_text('{"event": "x"}\n')
        os.utime(path, (time, time))
        packed.append(records.compress(path).read_bytes())
        assert not path.exists()
    assert packed[0] == packed[1]


def test_the_record_of_another_run_is_not_taken_for_an_older_one(tmp_path: Path) -> None:
    for name in ("20260101T000000Z-demo", "20260101T000000Z-demo-home-home", "20260102T000000Z-demo"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-summary.md").touch()
    records.remove(records.of(tmp_path, "demo"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "20260101T000000Z-demo-home-home",
        "20260101T000000Z-demo-home-home-summary.md",
    ]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_committed_record_holds_each_line_once(folder: Path) -> None:
    held = {path.name for path in folder.iterdir()}
    assert {one for one in held if not one.endswith(".log")} == {"events.jsonl.gz", "report.json"}
    counted: dict[str, dict[str, int]] = {}
    for event in records.events(folder):
        counts = counted.setdefault(event["who"], {})
        counts[event["event"]] = counts.get(event["event"], 0) + 1
    report = json.loads((folder / "report.json").read_text())
    if "events" in report:  # soak runs count none
        assert counted == report["events"]
    else:
        assert counted.keys() == {"relay", "server", "client"}
