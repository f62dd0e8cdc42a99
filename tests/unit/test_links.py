"""Links of the pages lead to files that are in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_house import ROOT, tracked

PAGES = [path for path in tracked() if path.suffix == ".md"]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text()) if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in links if not (page.parent / link).exists()] == []
