"""The page about the Python API names every public name, and the examples stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import punchbridge

ROOT = Path(__file__).parents[2]


def test_every_public_name_is_in_the_page() -> None:
    words = set(re.findall(r"\w+", (ROOT / "docs/python-api.md").read_text()))
    assert set(punchbridge.__all__) - words == set()


def test_every_public_method_is_in_the_page() -> None:
    words = set(re.findall(r"\w+", (ROOT / "docs/python-api.md").read_text()))
    methods = {name for name in vars(punchbridge.Bridge) if not name.startswith("_")} - {"close"}
    assert methods - words == set()


@pytest.mark.parametrize("name", ["server.py", "client.py"])
def test_examples_compile_and_stay_short(name: str) -> None:
    source = (ROOT / "examples" / name).read_text()
    compile(source, name, "exec")
    assert len(source.splitlines()) <= 30
