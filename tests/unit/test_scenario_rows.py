"""TEST_SCENARIOS.md, the catalogue and the lab tests name the same rows."""

from __future__ import annotations

import re
from pathlib import Path

from runs import evidence
from runs.catalogue import ROWS

ROOT = Path(__file__).resolve().parents[2]


def test_rows_have_ids_and_names_of_their_own() -> None:
    assert len({row.id for row in ROWS}) == len({row.scenario.name for row in ROWS}) == len(ROWS)


def test_page_has_a_section_and_a_test_for_each_row() -> None:
    page = (ROOT / "TEST_SCENARIOS.md").read_text()
    assert re.findall(r"^## \d+\. (S-\d{3}) ", page, re.M) == [row.id for row in ROWS]
    assert re.findall(r"^\*\*Test\.\*\* `(.+)`$", page, re.M) == [evidence.test_id(row) for row in ROWS]
    assert (ROOT / "tests/natlab/test_scenarios.py").exists()


def test_page_is_what_the_records_say() -> None:
    assert (ROOT / "TEST_SCENARIOS.md").read_text() == evidence.scenarios_page(ROOT / "logs")


def test_every_record_that_the_page_names_is_there() -> None:
    page = (ROOT / "TEST_SCENARIOS.md").read_text()
    links = re.findall(r"\]\((logs/[^)]+)\)", page)
    assert all((ROOT / link).exists() for link in links)
