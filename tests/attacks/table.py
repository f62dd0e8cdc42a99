"""The rows of the attacks as a table on the terminal and as the page `docs/records/attacks.md`. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.attacks.frame import Row, Tries

HEAD = (
    "attack",
    "what is tried",
    "memory MiB before / peak / after",
    "CPU",
    "honest peer: calm → attacked (times), failures",
    "back after",
    "turned away",
    "figures",
    "bounds",
    "held",
)

KINDS = {"fresh": "new connection", "fresh over QUIC": "new connection over QUIC"}


def row_of(found: Mapping[str, Any]) -> Row:
    """The row that a process printed as JSON."""
    rest = {name: value for name, value in found.items() if name not in ("calm", "attacked", "bounds")}
    calm, attacked = ({kind: Tries(**tries) for kind, tries in found[phase].items()} for phase in ("calm", "attacked"))
    bounds = [(words, held) for words, held in found["bounds"]]
    return Row(**rest, calm=calm, attacked=attacked, bounds=bounds)


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    broken = [f"NOT: {words}" if not held else words for words, held in row.bounds]
    return (
        row.attack,
        row.what,
        f"{row.before:.0f} / {row.peak:.0f} / {row.after:.0f}",
        f"{100 * row.cpu:.0f} %",
        "; ".join(_honest(row, kind) for kind in sorted({*row.calm, *row.attacked})),
        _recovery(row),
        ", ".join(f"{name} {times}" for name, times in sorted(row.refused.items())),
        ", ".join(f"{name} {value}" for name, value in row.said.items()),
        "; ".join(broken),
        "yes" if row.held else "**no**",
    )


def _honest(row: Row, kind: str) -> str:
    calm, attacked, ratio = row.calm.get(kind, Tries()), row.attacked.get(kind, Tries()), row.ratio(kind)
    times = f" ({ratio:.1f})" if ratio is not None else ""
    failed = f"{attacked.failed} of {attacked.count} failed"
    return f"{KINDS.get(kind, kind)} {_ms(calm)} → {_ms(attacked)}{times}, {failed}"


def _ms(tries: Tries) -> str:
    return "-" if tries.median is None else f"{tries.median:.0f} ms" if tries.median >= 10 else f"{tries.median:.1f} ms"


def _recovery(row: Row) -> str:
    if not row.attacked:
        return ""
    return "not within a minute" if row.recovery is None else f"{row.recovery:.0f} s"


def text(rows: Sequence[Row]) -> str:
    """For a terminal: a paragraph for each row."""
    out = []
    for row in rows:
        named = zip(HEAD[2:], cells(row)[2:], strict=True)
        lines = [f"  {name}: {value}" for name, value in named if value]
        out.append("\n".join([f"{row.attack}  {row.what}", *lines]))
    return "\n\n".join(out)


def page(
    rows: Sequence[Row], about: Mapping[str, str], titles: Mapping[str, str], command: str, skipped: Mapping[str, str]
) -> str:
    """The whole page. `titles`: the first line of each attack's module; `skipped`: why an attack was not played."""
    held = sum(row.held for row in rows)
    lines = [
        "# Attacks",
        "",
        f"Written by `{command}`; do not edit. {held} of {len(rows)} rows held their bounds.",
        "",
        "Each row: the real program, an attacker with a libp2p of its own (`tests/attacks/attacker.py`), and beside",
        "them an honest peer in a process of its own, which makes new connections, pings on one that stands, or calls",
        "through `forward` and `expose`. All run on loopback, where each address is a stranger, or in a network",
        "namespace. The attacker shares the cores with its victim, so the honest peer's times are an upper bound, told",
        "as ratios of the same run; counts, memory and refusals are what is judged. Memory is what is resident, CPU a",
        'share of one core. "Back after": seconds from the end of the attack until all that the honest peer tried in',
        'two seconds succeeded. "Turned away": the program\'s own counters of what it refused.',
        "",
        f"Commit {about['commit'][:12]}, kernel {about['kernel']}, Python {about['python']}, load {about['load']}.",
        "",
        _line(HEAD),
        _line(["---"] * len(HEAD)),
        *(_line([cell.replace("|", "\\|") for cell in cells(row)]) for row in rows),
        "",
    ]
    lines += [f"- {name} was not played: {why}" for name, why in skipped.items()]
    lines += ["" if skipped else "## The attacks", *(["## The attacks"] if skipped else []), ""]
    lines += [f"- `{name}`: {title}" for name, title in titles.items()]
    return "\n".join([*lines, ""])


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"
