"""The NAT matrix: what is expected over each transport, what counts as expected, and the page over both."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from lab.behaviours import BEHAVIOURS, behaviour, check_pair, direct_expected
from runs.matrix import Cell, all_pairs, can_run, merged, read_cells, write_cells
from runs.matrix_page import markdown
from runs.report import Report
from runs.scenario import Scenario

ABOUT = {"kernel": "6", "python": "3.11"}


def over(listener: str, dialer: str, **changes: Any) -> dict[str, bool]:
    return Scenario(listener, dialer, transport="both", **changes).expected_over


def report(expected: dict[str, str], *protocols: str, outcome: str = "direct") -> Report:
    wanted = "direct" if "direct" in expected.values() else "relay"
    made = Report({"expected": wanted, "expected_over": expected}, {"commit": "0" * 40}, outcome=outcome)
    made.five_tuples = [{"protocol": protocol} for protocol in protocols]
    made.watched = {"flows_rise": True}
    made.punch = {"attempt": 1, "elapsed_ms": 300.0, "budget_ms": 400.0, "within_budget": True, "codes": []}
    return made


# --- what is expected ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "direct"),
    [
        (("home", "home"), True),
        (("symmetric", "home"), False),
        (("home", "symmetric"), False),
        (("symmetric", "fullcone"), True),
        (("symmetric", "addr-restricted"), True),
        (("symmetric", "symmetric-seq"), False),
    ],
)
def test_both_transports_come_to_the_same_pairs(pair: tuple[str, str], direct: bool) -> None:
    assert over(*pair) == {"tcp": direct, "quic": direct}


def test_where_udp_does_not_pass_nothing_is_expected_of_quic() -> None:
    assert over("home-noudp", "home-noudp") == {"tcp": True, "quic": False}
    assert over("home", "home", block="udp") == {"tcp": True, "quic": False}
    assert over("home", "home", block="tcp") == {"tcp": False, "quic": True}
    assert over("home", "home", p2p=False) == {"tcp": False, "quic": False}
    assert not can_run(("home-noudp", "home-noudp"), "quic")
    with pytest.raises(ValueError, match="home-noudp lets no UDP through"):
        Scenario("home-noudp", "home-noudp", transport="quic").check()
    Scenario("home-noudp", "home-noudp", transport="both").check()


def test_the_expectation_does_not_depend_on_who_listens() -> None:
    for first in BEHAVIOURS:
        for second in BEHAVIOURS:
            a, b = behaviour(first), behaviour(second)
            try:
                check_pair(a, b)
            except ValueError:
                continue
            for transport in ("tcp", "quic"):
                assert direct_expected(a, b, transport) == direct_expected(b, a, transport)


def test_direct_over_a_transport_that_cannot_be_is_not_as_expected() -> None:
    blocked = {"tcp": "direct", "quic": "relay"}
    assert report(blocked, "tcp").as_expected
    assert not report(blocked, "udp").as_expected
    assert not report(blocked, "tcp", "udp").as_expected
    assert report({"quic": "direct"}, "udp").as_expected
    assert report({"quic": "relay"}, outcome="relay").as_expected
    assert not report({"quic": "direct"}, outcome="relay").as_expected


# --- the page -----------------------------------------------------------------------------------------------


def cell(listener: str, dialer: str, transport: str, made: Report) -> Cell:
    found = Cell(listener, dialer, transport, made.scenario["expected"])
    found.add(made)
    return found


def cells() -> list[Cell]:
    relayed = report({"quic": "relay"}, outcome="relay")
    relayed.punch = {"codes": ["UDP_BLOCKED"]}
    return [
        cell("home", "home", "tcp", report({"tcp": "direct"}, "tcp")),
        cell("home", "home", "quic", report({"quic": "direct"}, "udp")),
        cell("home", "symmetric", "quic", relayed),
        cell("home-noudp", "home-noudp", "tcp", report({"tcp": "direct"}, "tcp")),
    ]


def test_the_page_has_quic_beside_tcp() -> None:
    page = markdown(cells(), Scenario(), ABOUT, "scripts/natlab matrix")
    assert "As expected: over TCP 2 of 2, over QUIC 2 of 2 runs." in page
    assert "| **home** | 1/1 300 ms<br>1/1 300 ms | -<br>relay UDP_BLOCKED |" in page
    assert "| home-noudp | home-noudp | 1/1 300 ms | no UDP |" in page
    assert "| home | home | QUIC | direct | 1/1 | 1/1 | 1/1 | 300 | 300 | 1/1 | 400 | -+- |  |  |" in page


def test_a_run_that_missed_the_expectation_stands_out() -> None:
    missed = cell("home", "home", "quic", report({"quic": "direct"}, outcome="relay"))
    page = markdown([missed], Scenario(), ABOUT, "")
    assert "over QUIC 0 of 1" in page
    assert "**relay (expected direct)**" in page


def test_cells_are_kept_and_the_newer_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "cells.json"
    assert read_cells(path) == []
    write_cells(path, cells())
    kept = read_cells(path)
    assert [asdict(one) for one in kept] == [asdict(one) for one in cells()]
    newer = cell("home", "home", "quic", report({"quic": "direct"}, outcome="relay"))
    every = merged(kept, [newer])
    assert len(every) == 4
    assert next(one for one in every if one.key == newer.key) is newer
    order = [(one.listener, one.dialer) for one in every]
    assert order == sorted(order, key=all_pairs().index)
