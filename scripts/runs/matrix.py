"""The table of NAT pairs: run scenarios over many pairs and both transports, and keep what came out of each.

Knows scenarios and reports; nothing of namespaces or events, and nothing of the page (`runs.matrix_page`).
"""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lab.behaviours import behaviour, check_pair

from runs.report import Report
from runs.scenario import Scenario, run_scenario

CORE = (
    "public", "firewall", "fullcone", "addr-restricted", "home", "home-rst", "home-icmp", "eimhash", "cgnat",
    "symmetric", "symmetric-seq", "cgnat-symmetric",
)  # fmt: skip
"""Behaviours that are paired with each other, in both roles."""

ALONE = ("home-own", "firewall-rst", "home-noudp", "same-nat", "same-nat-nohairpin", "same-lan", "ipv6")
"""Behaviours that are paired with themselves only."""

QUICK = (
    ("home", "home"), ("home-rst", "home-icmp"), ("eimhash", "home"), ("firewall", "cgnat"), ("public", "symmetric"),
    ("symmetric", "fullcone"), ("addr-restricted", "symmetric"), ("home", "symmetric"), ("same-nat", "same-nat"),
    ("ipv6", "ipv6"),
)  # fmt: skip
"""One pair for each thing that can go wrong; what continuous integration runs. (listener, dialer)"""

TRANSPORTS = ("tcp", "quic")
"""The columns of the table; in a run the programs listen on one of them alone, and reach the relay over it."""

Pair = tuple[str, str]


def all_pairs() -> list[Pair]:
    """The whole table: every core pair in both roles, and the others with themselves."""
    return [(listener, dialer) for listener in CORE for dialer in CORE] + [(name, name) for name in ALONE]


def parse_pairs(text: str) -> list[Pair]:
    """`home:symmetric,public:*`: listener:dialer pairs, `*` stands for each core behaviour. Raises ValueError."""
    found: list[Pair] = []
    for item in text.split(","):
        listener, colon, dialer = item.strip().partition(":")
        if not colon:
            raise ValueError(f"{item!r} is no pair; write LISTENER:DIALER, for example home:symmetric")
        for left in CORE if listener == "*" else (listener,):
            for right in CORE if dialer == "*" else (dialer,):
                check_pair(behaviour(left), behaviour(right))
                found.append((left, right))
    return found


@dataclass(slots=True)
class Cell:
    """All runs of one pair over one transport, as counts. `elapsed_ms`: of the direct runs, sorted."""

    listener: str
    dialer: str
    transport: str
    expected: str
    commit: str = ""
    runs: int = 0
    as_expected: int = 0
    direct: int = 0
    first_attempt: int = 0
    elapsed_ms: list[float] = field(default_factory=list)
    budget_ms: float | None = None
    within_budget: int = 0
    codes: list[str] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.listener, self.dialer, self.transport)

    def add(self, report: Report) -> None:
        """Count one run."""
        punch = report.punch
        self.commit = report.environment.get("commit", "")
        self.runs += 1
        self.as_expected += report.as_expected
        self.budget_ms = punch.get("budget_ms") if self.budget_ms is None else self.budget_ms
        if report.direct:
            self.direct += 1
            self.first_attempt += punch.get("attempt") in (None, 0, 1)
            self.within_budget += bool(punch.get("within_budget"))
            if punch.get("elapsed_ms") is not None:
                self.elapsed_ms = sorted([*self.elapsed_ms, float(punch["elapsed_ms"])])
            self.how = sorted({*self.how, _how(punch)})
        else:
            self.codes = sorted({*self.codes, *punch.get("codes", [])})
        if not report.as_expected:
            said = ": ".join([report.error or report.outcome, *_last_words(report)])
            self.errors = sorted({*self.errors, said})


def _how(punch: Mapping[str, dict[str, dict[str, str] | None]]) -> str:
    """How each side came by its direct connection, the listener first."""
    return "+".join(str((punch.get(who, {}).get("succeeded") or {}).get("how", "-")) for who in ("listener", "dialer"))


def _last_words(report: Report) -> list[str]:
    """The last line of each failed program's own errors."""
    tails = [program["stderr"].splitlines()[-1:] for program in report.programs.values() if program["exit"] != 0]
    return [line[:160] for tail in tails for line in tail]


def can_run(pair: Pair, transport: str) -> bool:
    """Whether both hosts of a pair reach the relay over a transport at all."""
    return transport != "quic" or not any(behaviour(name).udp_blocked for name in pair)


def run_matrix(
    pairs: Iterable[Pair],
    scenario: Scenario,
    *,
    transports: Sequence[str] = TRANSPORTS,
    runs: int = 1,
    jobs: int = 1,
    direct_jobs: int = 1,
    progress: Callable[[Cell], None] | None = None,
) -> list[Cell]:
    """Run every pair `runs` times over each transport over which its hosts reach the relay.

    Pairs expected direct run one after the other (or `direct_jobs` side by side), because they are timed; then up to
    `jobs` of the others, because they mostly wait for deadlines.
    """
    cells = []
    for pair in pairs:
        for transport in (one for one in transports if can_run(pair, one)):
            what = replace(scenario, listener_nat=pair[0], dialer_nat=pair[1], transport=transport)
            cells.append((what, Cell(*pair, transport, "direct" if what.direct_expected else "relay")))

    def work(item: tuple[Scenario, Cell]) -> Cell:
        what, cell = item
        for _ in range(runs):
            cell.add(run_scenario(what))
        if progress is not None:
            progress(cell)
        return cell

    for expected, workers in (("direct", direct_jobs), ("relay", jobs)):
        chosen = [item for item in cells if item[1].expected == expected]
        with concurrent.futures.ThreadPoolExecutor(max(1, workers)) as pool:
            list(pool.map(work, chosen))
    return [cell for _, cell in cells]


def merged(old: Iterable[Cell], new: Iterable[Cell]) -> list[Cell]:
    """Cells of several calls in the order of the whole table; the newer one of the same pair and transport stays."""
    found = {cell.key: cell for cell in (*old, *new)}
    keys = [(*pair, transport) for pair in all_pairs() for transport in TRANSPORTS]
    rest = [key for key in found if key not in keys]
    return [found[key] for key in (*keys, *rest) if key in found]


def read_cells(path: Path) -> list[Cell]:
    """The cells that `write_cells` kept; none when there is no file. Raises OSError, ValueError."""
    if not path.exists():
        return []
    return [Cell(**one) for one in json.loads(path.read_text())["cells"]]


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """Keeps cells for a later call. Raises OSError."""
    lines = ",\n".join(json.dumps(asdict(cell)) for cell in cells)
    path.write_text(f'{{"v": 1, "cells": [\n{lines}\n]}}\n')
