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


def test_every_attack_is_named() -> None:
    there = {path.name.partition("_")[0] for path in (ROOT / "tests" / "attacks").glob("a[0-9]*_*.py")}
    assert set(re.findall(r"`(a\d\d)`", PAGE)) == there
