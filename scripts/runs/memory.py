"""Whether a program's memory stays where it is over a long run: medians of its parts, from the samples it printed.

It knows numbers only, no program and no lab. A leak raises what is in use; the resident size also swings with the holes
that the allocators keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

RISE = 0.05
"""From the middle third of a run to its last one. Measured over 340 s (3000 switches) and 165 s (1200): resident
+0.8 to +1.8 %, Python's blocks +0.3 to +1.6 %. A hundred bytes kept of each message would be 10 % and more."""

SWING = 0.10
"""The same for malloc's bytes in use, which hold what is under way: measured -0.1 to +4.3 %."""

LEAST = 30
"""Samples, one a second: a shorter run shows how buffers grow, not whether they end."""

KINDS = {
    "resident": ("resident memory", 2**20, "MiB"),
    "in_use": ("malloc's bytes in use", 2**20, "MiB"),
    "blocks": ("Python's blocks in use", 1000, "thousand"),
}

Sample = Mapping[str, int]


def parts(series: Sequence[int], count: int) -> list[float]:
    """Medians of so many equal parts of a series, in order; none when it is too short."""
    size = len(series) // count
    return [median(series[number * size : (number + 1) * size]) for number in range(count)] if size else []


def flat(who: str, samples: Sequence[Sample]) -> list[tuple[str, bool]]:
    """A statement for each kind of memory, and whether it holds."""
    found = []
    for kind, (words, unit, name) in KINDS.items():
        series = [sample[kind] for sample in samples if sample.get(kind)]
        if len(series) < LEAST:
            found.append((f"{words} of the {who}: {len(series)} samples, at least {LEAST}", kind == "in_use"))
            continue
        _, middle, last = parts(series, 3)
        rise, bound = last / middle - 1, SWING if kind == "in_use" else RISE
        text = f"{words} of the {who} is flat: {last / unit:.1f} {name} in the last third, {100 * rise:+.1f} %"
        found.append((f"{text} on the middle third, less than {100 * bound:g} %", rise < bound))
    return found


def quarters(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Medians of the quarters of the run, by kind; MiB, and thousands of blocks."""
    return {
        f"{kind} ({name})": [round(one / unit, 1) for one in parts([sample[kind] for sample in samples], 4)]
        for kind, (_, unit, name) in KINDS.items()
        if samples and all(kind in sample for sample in samples)
    }
