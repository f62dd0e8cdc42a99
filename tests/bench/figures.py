"""Figures of interleaved rounds: medians, ranges, and ratios taken within a round. Prints tables; measures nothing."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Series:
    """One figure of one contender, a value for each round."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{number(self.median)} ({number(low)}–{number(high)})" if high > low else number(self.median)

    def ratio(self, other: Series) -> float:
        """The median of the ratios of each round: load that changes between rounds cancels out."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True))


@dataclass
class Table:
    """Rows of figures; `base` names the row that ratios are taken against."""

    title: str
    columns: list[str]
    base: dict[str, str] = field(default_factory=dict)
    """Column: the row whose figure is 1.00 there."""
    rows: dict[str, dict[str, Series]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, column: str, value: float) -> None:
        self.rows.setdefault(row, {}).setdefault(column, Series()).values.append(value)

    def cells(self) -> list[list[str]]:
        out = [["", *self.columns]]
        for name, figures in self.rows.items():
            cells = [name]
            for column in self.columns:
                series = figures.get(column)
                if series is None:
                    cells.append("–")
                    continue
                base = self.rows.get(self.base.get(column, ""), {}).get(column)
                ratio = ""
                # Processor time comes in ticks: a tiny run may have taken none.
                comparable = base is not None and len(base.values) == len(series.values) and all(base.values)
                if base is not None and comparable and name != self.base[column]:
                    ratio = f" = {series.ratio(base):.2f}"
                cells.append(f"{series}{ratio}")
            out.append(cells)
        return out

    def markdown(self) -> str:
        head, *body = self.cells()
        lines = [f"### {self.title}", "", _row(head), _row(["---"] * len(head)), *map(_row, body)]
        return "\n".join(lines + [f"\n{_public(note)}" for note in self.notes]) + "\n"

    def text(self) -> str:
        cells = self.cells()
        widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([self.title, *("  " + line for line in lines), *("  " + note for note in self.notes)])

    def data(self) -> dict[str, Any]:
        return asdict(self)


def _public(note: str) -> str:
    """A note for a page that others read: no peer id of this run, no path of this machine, one line."""
    text = re.sub(r"12D3KooW\w+", "…", note.partition("it said:")[0])
    return re.sub(r"(?<![\w.])/[\w./-]+/", "…/", text).strip(" ;(")[:300]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def progress(text: str) -> None:
    """A line on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
