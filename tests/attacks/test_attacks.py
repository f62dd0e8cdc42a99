"""The attacks in their short form: what is bounded by counts and memory holds. No time and no speed is asserted.

`scripts/attacks run` plays them in full. Those that put addresses on an interface run with the lab tests.
"""

from __future__ import annotations

import pytest

from tests.attacks.frame import Row, Tries
from tests.attacks.run import Unavailable, chosen, names, needs_namespaces, play
from tests.attacks.table import cells, page, text


def attacks() -> list[object]:
    return [pytest.param(name, marks=pytest.mark.natlab if needs_namespaces(name) else ()) for name in names()]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", attacks())
def test_held(name: str) -> None:
    try:
        rows = play(name, short=True)
    except Unavailable as problem:
        pytest.skip(str(problem))
    assert rows
    for row in rows:
        assert row.held, text([row])


def test_the_attacks_are_found_by_the_beginning_of_their_names() -> None:
    assert chosen(["a17"]) == ["a17_ping_rate"]
    assert chosen([]) == names()
    with pytest.raises(ValueError, match="no attack 'b'"):
        chosen(["b"])


def test_a_row_tells_what_did_not_hold() -> None:
    row = Row("a99", "what", before=90, peak=130, after=91)
    row.calm = {"ping": Tries(10, 0, 2.0)}
    row.attacked = {"ping": Tries(10, 3, 5.0, "late")}
    row.bound("memory +32 MiB at most", row.grown <= 32)
    assert not row.held
    assert row.failed("ping") == (3, 10)
    assert row.ratio("ping") == 2.5
    assert "NOT: memory +32 MiB at most" in cells(row)
    about = {"commit": "0" * 40, "kernel": "6", "python": "3", "load": "1"}
    told = page([row], about, {"a99": "title"}, "scripts/attacks run", {})
    assert "0 of 1 rows held" in told
    assert "ping 2.0 ms → 5.0 ms (2.5), 3 of 10 failed" in told


def test_a_row_without_bounds_has_not_held() -> None:
    assert not Row("a99", "what").held
