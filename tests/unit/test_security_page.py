"""SECURITY.md names the attacks and tests that show each bound: they are there, and no attack is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()


def test_what_is_named_is_there() -> None:
    files = re.findall(r"`((?:tests|docs|scripts)/[\w./-]+)`", PAGE)
    assert len(files) > 10
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_attacks_over_both_transports_are_named_as_such() -> None:
    line = next(one for one in PAGE.splitlines() if one.startswith("Played over TCP and over QUIC"))
    files = (ROOT / "tests" / "attacks").glob("a[0-9]*_*.py")
    both = {path.name.partition("_")[0] for path in files if "from tests.attacks.over import" in path.read_text()}
    assert set(re.findall(r"`(a\d\d)`", line)) == both
    assert len(both) >= 4


def test_every_attack_is_named() -> None:
    there = {path.name.partition("_")[0] for path in (ROOT / "tests" / "attacks").glob("a[0-9]*_*.py")}
    assert set(re.findall(r"`(a\d\d)`", PAGE)) == there
