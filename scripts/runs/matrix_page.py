"""The page `docs/records/nat-matrix.md`: every pair over TCP and over QUIC, beside what was expected. Runs nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from lab.behaviours import BEHAVIOURS

from runs.matrix import CORE, TRANSPORTS, Cell, Pair, can_run
from runs.scenario import Scenario

_HEAD = (
    "listener", "dialer", "over", "expected", "as expected", "direct", "first attempt", "median ms", "max ms",
    "in budget", "budget ms", "connected by", "codes", "remarks",
)  # fmt: skip

_NAMES = {"tcp": "TCP", "quic": "QUIC"}


def markdown(cells: Sequence[Cell], scenario: Scenario, environment: dict[str, str], command: str) -> str:
    """The whole page."""
    delay = ", ".join(f"{name} {value:g}" for name, value in scenario.delay.items())
    names = [name for name in BEHAVIOURS if any(name in (cell.listener, cell.dialer) for cell in cells)]
    commits = ", ".join(dict.fromkeys(cell.commit[:12] or "unknown" for cell in cells))
    lines = [
        "# NAT matrix",
        "",
        f"Written by `{command}`; do not edit. {_score(cells)}.",
        "",
        f"Each run: relay, listener, dialer as real programs, real kernel NATs in network namespaces, {delay} ms",
        f"one way per access link, loss {scenario.loss:g}. Kernel {environment['kernel']},",
        f"Python {environment['python']}, commit {commits}. In a run the programs listen on one transport alone,",
        "and reach the relay over it.",
        "",
        "`direct` needs matching ends in what both hosts' kernels have (TCP: their socket tables; QUIC: their packet",
        "counters), translated through the NATs' connection tables, whose byte counters rise at both ends while",
        "traffic is watched, besides the programs' events. A pair expected on the relay passes when the failure was",
        "reported and messages kept flowing over the relay. Times: from CONNECT to a finished round trip on the new",
        "connection, median.",
        "",
    ]
    lines += _square(cells, [name for name in names if name in CORE])
    lines += _others(cells)
    lines += ["## Every pair", "", _row(_HEAD), _row(["---"] * len(_HEAD)), *(_details(cell) for cell in cells)]
    lines += ["", "## Behaviours", "", *(f"- `{name}`: {BEHAVIOURS[name].about}" for name in names), ""]
    return "\n".join(lines)


def _score(cells: Sequence[Cell]) -> str:
    """How many runs came out as expected, for each transport."""
    told = []
    for transport in TRANSPORTS:
        chosen = [cell for cell in cells if cell.transport == transport]
        good, total = sum(cell.as_expected for cell in chosen), sum(cell.runs for cell in chosen)
        if total:
            told.append(f"over {_NAMES[transport]} {good} of {total}")
    return f"As expected: {', '.join(told)} runs" if told else "Nothing was run"


def _short(cell: Cell) -> str:
    times = cell.elapsed_ms
    text = f"{cell.direct}/{cell.runs}"
    if times:
        text += f" {statistics.median(times):.0f} ms"
    elif not cell.direct:
        text = f"relay {', '.join(cell.codes)}".strip()
    return text if cell.as_expected == cell.runs else f"**{text} (expected {cell.expected})**"


def _over(cells: dict[tuple[str, str, str], Cell], pair: Pair, transport: str) -> str:
    """What a pair did over a transport; why there is nothing, when it can be told."""
    cell = cells.get((*pair, transport))
    if cell is not None:
        return _short(cell)
    return "" if can_run(pair, transport) else "no UDP"


def _square(cells: Sequence[Cell], core: Sequence[str]) -> list[str]:
    if not core:
        return []
    found = {cell.key: cell for cell in cells}
    lines = [
        "## Pairs",
        "",
        "Rows: listener. Columns: dialer. The first line of a cell is TCP, the second one QUIC: `direct runs / runs,",
        "time`, or why it stays relayed.",
        "",
        _row(["", *core]),
        _row(["---"] * (len(core) + 1)),
    ]
    for listener in core:
        texts = []
        for dialer in core:
            parts = [_over(found, (listener, dialer), transport) for transport in TRANSPORTS]
            texts.append("<br>".join(part or "-" for part in parts) if any(parts) else "")
        lines.append(_row([f"**{listener}**", *texts]))
    return [*lines, ""]


def _others(cells: Sequence[Cell]) -> list[str]:
    """The pairs that stand outside of the square, TCP beside QUIC."""
    found = {cell.key: cell for cell in cells}
    pairs = dict.fromkeys((cell.listener, cell.dialer) for cell in cells)
    rows = [
        _row([*pair, *(_over(found, pair, transport) for transport in TRANSPORTS)])
        for pair in pairs
        if not set(pair) <= set(CORE)
    ]
    if not rows:
        return []
    head = ["listener", "dialer", *(_NAMES[transport] for transport in TRANSPORTS)]
    return ["## Other pairs", "", _row(head), _row(["---"] * len(head)), *rows, ""]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


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
    return _row([cell.listener, cell.dialer, _NAMES[cell.transport], cell.expected, *counts, *timed, *words])
