"""The benchmark runs: each part in its quick form, with the tables it promises. No timing is asserted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def quick(part: str) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / "scripts" / "bench", part, "--quick", "--json"], text=True, capture_output=True, timeout=170
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
def test_grpc() -> None:
    for rows in quick("rpc").values():
        # Other languages' peers are there only where they were built.
        assert set(rows) >= {"unix socket", "TCP with TLS", "bridge, direct", "bridge, relayed", "py-libp2p stream"}


@pytest.mark.timeout(180)
def test_relay() -> None:
    tables = quick("circuits")
    assert "punchbridge" in tables["Relay: payload through circuits"]
    assert "punchbridge, 10 reservations" in tables["Relay: memory of what is idle"]


def test_start() -> None:
    assert "punchbridge relay, listening" in quick("startup")["Start of the programs"]


def test_an_unknown_part_is_a_usage_error() -> None:
    done = subprocess.run([ROOT / "scripts" / "bench", "speed"], text=True, capture_output=True)
    assert done.returncode == 2
    assert "no part speed" in done.stderr
