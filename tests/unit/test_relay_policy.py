"""docs/policy.md tells every relay limit with its default and every reason of a refusal."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).parents[2]
POLICY = (ROOT / "docs" / "policy.md").read_text().partition("## Relays")[2]


def test_every_limit_stands_there_with_its_default() -> None:
    from punchbridge_relay.limits import RelayLimits

    told = dict(re.findall(r"^\| `([a-z_0-9]+)` \| ([\d.]+) \|", POLICY, re.MULTILINE))
    assert told == {item.name: str(item.default) for item in fields(RelayLimits) if item.name != "hop"}


def test_every_reason_of_a_refusal_stands_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "relay").glob("*.py"))
    reasons = set(re.findall(r"Refusal\((?:Status\.\w+|status), \"(\w+)\"\)", sources))
    assert len(reasons) > 15
    assert {reason for reason in reasons if f"`{reason}`" not in POLICY} == set()
