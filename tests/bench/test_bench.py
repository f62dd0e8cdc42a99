"""The benchmark runs: each part in its quick form, with the tables it promises. No timing is asserted."""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aims import FLOW, START, STREAM, judged
from figures import Table
from page import write_page

ROOT = Path(__file__).resolve().parents[2]


def quick(part: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / "scripts" / "bench", part, *options, "--quick", "--json"], text=True, capture_output=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["machine"]["processor"]
    return {table["title"]: table["rows"] for table in found["parts"][part]}


@pytest.mark.timeout(180)
def test_stream() -> None:
    rows = quick("stream")["One stream: each stack with itself"]
    for name in ("raw TCP", "ChaCha20 framing", "punchbridge", "py-libp2p"):
        assert set(rows[name]) == {"up MB/s", "down MB/s", "echo p50 µs", "CPU ms/MiB"}
        # CPU is counted in ticks of 10 ms; a quick form may take less than one.
        measured = [series["values"] for what, series in rows[name].items() if what != "CPU ms/MiB"]
        assert all(value > 0 for values in measured for value in values)


@pytest.mark.timeout(180)
def test_against_itself() -> None:
    rows = quick("against", "--tree", str(ROOT))["One stream"]
    assert set(rows) == {"this tree", "the other tree"}


@pytest.mark.timeout(180)
def test_grpc() -> None:
    for rows in quick("rpc").values():
        # Other languages' peers are there only where they were built.
        assert set(rows) >= {"unix socket", "TCP with TLS", "bridge, direct", "bridge, relayed", "py-libp2p stream"}


@pytest.mark.timeout(180)
def test_relay() -> None:
    tables = quick("circuits")
    assert "punchbridge" in tables["Relay: payload through circuits"]
    assert "punchbridge, 10 reservations" in tables["Relay: memory of what is idle"]


@pytest.mark.timeout(180)
def test_idle() -> None:
    rows = quick("idle")["Connections: setting one up, and holding it idle"]
    assert {"KiB, end that dialled", "KiB, end that accepted", "CPU ms to set up, both ends"} == set(
        rows["punchbridge"]
    )
    assert (
        ("punchbridge QUIC" in rows) == ("the QUIC engine alone" in rows) == (find_spec("punchbridge_quic") is not None)
    )


def test_start() -> None:
    assert "punchbridge relay, listening" in quick("startup")["Start of the programs"]


def test_an_unknown_part_is_a_usage_error() -> None:
    done = subprocess.run([ROOT / "scripts" / "bench", "speed"], text=True, capture_output=True)
    assert done.returncode == 2
    assert "no part speed" in done.stderr


def tables() -> dict[str, list[Table]]:
    """A run's tables with two rounds of few figures."""
    stream = Table(STREAM, ["up MB/s", "down MB/s", "echo p50 µs"])
    for name, up, echo in (("ChaCha20 framing", 400.0, 60.0), ("punchbridge", 300.0, 90.0), ("raw TCP", 900.0, 40.0)):
        for load in (1.0, 2.0):
            stream.add(name, "up MB/s", up / load)
            stream.add(name, "down MB/s", up / load / 2)
            stream.add(name, "echo p50 µs", echo * load)
    flow = Table(FLOW, ["100 ms"])
    flow.add("punchbridge MB/s", "100 ms", 59.0)
    return {"stream": [stream], "delayed": [flow], "startup": [Table(START, [])]}


def test_aims_are_judged_by_the_ratios_of_a_run() -> None:
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in judged(tables()).splitlines()[2:]}
    assert rows["| one stream at least 0.5 of ChaCha20 framing"] == ["0.75, 0.75", "yes |"]
    assert rows["| 32-byte echo at most 2 times raw TCP"] == ["2.25", "no |"]
    assert rows["| 60 MB/s at 100 ms"] == ["59 MB/s", "no |"]
    assert rows["| `punchbridge --help` under 150 ms"] == ["not measured", "– |"]


def test_a_page_keeps_its_prose_and_the_parts_that_did_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\nbefore\n\n<!-- aims: written by scripts/bench --write -->\n<!-- end of aims -->\n\nafter\n"
    )
    write_page(str(page), {"load": "1"}, tables(), "scripts/bench", whole=True)
    first = page.read_text()
    assert first.startswith("# Page\n\nbefore\n\n<!-- aims")
    assert first.index("59 MB/s") < first.index("after") < first.index("ChaCha20 framing | 300")
    write_page(str(page), {"load": "2"}, {"delayed": tables()["delayed"]}, "scripts/bench delayed", whole=False)
    second = page.read_text()
    assert second.count("- load: 1") == 2
    assert second.count("- load: 2") == 1
    assert "59 MB/s | no" in second
