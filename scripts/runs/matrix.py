"""The table of NAT pairs: run scenarios over many pairs and write what came out beside what was expected.

Knows scenarios and text tables; nothing of namespaces or events.
"""

from __future__ import annotations

import concurrent.futures
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab.behaviours import BEHAVIOURS, behaviour, check_pair

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
    """All runs of one pair."""

    listener: str
    dialer: str
    expected: str
    reports: list[Report] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return len(self.reports)

    @property
    def direct(self) -> int:
        return sum(report.direct for report in self.reports)

    @property
    def as_expected(self) -> int:
        return sum(report.as_expected for report in self.reports)

    @property
    def first_attempt(self) -> int:
        return sum(report.direct and report.punch.get("attempt") in (None, 0, 1) for report in self.reports)

    @property
    def elapsed_ms(self) -> list[float]:
        times = [report.punch.get("elapsed_ms") for report in self.reports if report.direct]
        return sorted(float(time) for time in times if time is not None)

    @property
    def within_budget(self) -> int:
        return sum(bool(report.punch.get("within_budget")) for report in self.reports)

    @property
    def budget_ms(self) -> float | None:
        budgets = [report.punch.get("budget_ms") for report in self.reports]
        return next((float(one) for one in budgets if one is not None), None)

    @property
    def codes(self) -> list[str]:
        failed = [report for report in self.reports if not report.direct]
        return sorted({code for report in failed for code in report.punch.get("codes", [])})

    @property
    def how(self) -> list[str]:
        sides = ("listener", "dialer")
        won = [
            "+".join(str((report.punch.get(side, {}).get("succeeded") or {}).get("how", "-")) for side in sides)
            for report in self.reports
            if report.direct
        ]
        return sorted(set(won))

    @property
    def errors(self) -> list[str]:
        """What the runs that missed the expectation said, with the last line of the programs' own errors."""
        missed = [report for report in self.reports if not report.as_expected]
        return sorted({": ".join([report.error or report.outcome, *_last_words(report)]) for report in missed})

    def as_json(self) -> dict[str, Any]:
        return {
            "listener": self.listener,
            "dialer": self.dialer,
            "expected": self.expected,
            "runs": self.runs,
            "as_expected": self.as_expected,
            "direct": self.direct,
            "first_attempt": self.first_attempt,
            "elapsed_ms": self.elapsed_ms,
            "budget_ms": self.budget_ms,
            "within_budget": self.within_budget,
            "codes": self.codes,
            "how": self.how,
            "errors": self.errors,
        }


def _last_words(report: Report) -> list[str]:
    tails = [program["stderr"].splitlines()[-1:] for program in report.programs.values() if program["exit"] != 0]
    return [line[:160] for tail in tails for line in tail]


def run_matrix(
    pairs: Iterable[Pair],
    scenario: Scenario,
    *,
    runs: int = 1,
    jobs: int = 1,
    direct_jobs: int = 1,
    progress: Callable[[Cell], None] | None = None,
) -> list[Cell]:
    """Run every pair `runs` times. Pairs expected direct run one after the other (or `direct_jobs` side by side),
    because they are timed; then up to `jobs` of the others, because they mostly wait for deadlines."""
    cells = []
    for listener, dialer in pairs:
        what = replace(scenario, listener_nat=listener, dialer_nat=dialer)
        cells.append((what, Cell(listener, dialer, "direct" if what.direct_expected else "relay")))

    def work(item: tuple[Scenario, Cell]) -> Cell:
        what, cell = item
        for _ in range(runs):
            cell.reports.append(run_scenario(what))
        if progress is not None:
            progress(cell)
        return cell

    for expected, workers in (("direct", direct_jobs), ("relay", jobs)):
        chosen = [item for item in cells if item[1].expected == expected]
        with concurrent.futures.ThreadPoolExecutor(max(1, workers)) as pool:
            list(pool.map(work, chosen))
    return [cell for _, cell in cells]


def _short(cell: Cell) -> str:
    times = cell.elapsed_ms
    text = f"{cell.direct}/{cell.runs}"
    if times:
        text += f" {statistics.median(times):.0f} ms"
    elif not cell.direct:
        text = f"relay {', '.join(cell.codes)}".strip()
    return text if cell.as_expected == cell.runs else f"**{text} (expected {cell.expected})**"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


_HEAD = (
    "listener", "dialer", "expected", "as expected", "direct", "first attempt", "median ms", "max ms", "in budget",
    "budget ms", "connected by", "codes", "remarks",
)  # fmt: skip


def _details(cell: Cell) -> str:
    times = cell.elapsed_ms
    budget = cell.budget_ms
    timed = (
        f"{statistics.median(times):.0f}" if times else "",
        f"{times[-1]:.0f}" if times else "",
        f"{cell.within_budget}/{len(times)}" if times else "",
        f"{budget:.0f}" if times and budget is not None else "",
    )
    counts = (
        f"{cell.as_expected}/{cell.runs}",
        f"{cell.direct}/{cell.runs}",
        f"{cell.first_attempt}/{cell.runs}" if cell.direct else "",
    )
    words = (", ".join(cell.how), ", ".join(cell.codes), ", ".join(cell.errors))
    return _row([cell.listener, cell.dialer, cell.expected, *counts, *timed, *words])


def _square(cells: Sequence[Cell], core: Sequence[str]) -> list[str]:
    by_pair = {(cell.listener, cell.dialer): cell for cell in cells}
    lines = [
        "## Pairs",
        "",
        "Rows: listener. Columns: dialer. `direct runs / runs, time`, or why it stays relayed.",
        "",
    ]
    lines += [_row(["", *core]), _row(["---"] * (len(core) + 1))]
    for listener in core:
        row = [by_pair.get((listener, dialer)) for dialer in core]
        lines.append(_row([f"**{listener}**", *("" if cell is None else _short(cell) for cell in row)]))
    return [*lines, ""]


def markdown(cells: Sequence[Cell], scenario: Scenario, environment: dict[str, str], command: str) -> str:
    """The document `docs/records/nat-matrix.md`."""
    delay = ", ".join(f"{name} {value:g}" for name, value in scenario.delay.items())
    good = sum(cell.as_expected for cell in cells)
    total = sum(cell.runs for cell in cells)
    names = [name for name in BEHAVIOURS if any(name in (cell.listener, cell.dialer) for cell in cells)]
    lines = [
        "# NAT matrix",
        "",
        f"Written by `{command}`; do not edit. {good} of {total} runs as expected.",
        "",
        f"Each run: relay, listener, dialer as real programs, real kernel NATs in network namespaces, {delay} ms",
        f"one way per access link, loss {scenario.loss:g}. Kernel {environment['kernel']},",
        f"Python {environment['python']}, commit {environment['commit'][:12]}.",
        "",
        "`direct` needs matching TCP 5-tuples in both hosts' own socket tables, translated through the NATs'",
        "connection tables, whose byte counters rise at both ends while traffic is watched, besides the programs'",
        "events. A pair expected on the relay passes when the failure was reported and messages kept flowing over the",
        "relay. Times: from CONNECT to a finished round trip on the new connection, median.",
        "",
    ]
    core = [name for name in names if name in CORE]
    if core:
        lines += _square(cells, core)
    lines += ["## Every pair", "", _row(_HEAD), _row(["---"] * len(_HEAD)), *(_details(cell) for cell in cells)]
    lines += ["", "## Behaviours", "", *(f"- `{name}`: {BEHAVIOURS[name].about}" for name in names), ""]
    return "\n".join(lines)
