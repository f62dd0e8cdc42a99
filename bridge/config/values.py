"""What every configuration value shares: its units as names of types, and the check of each field by its unit.

A value is a frozen dataclass. It refuses what makes no sense when it is made, so that nothing behind it checks again.
This module knows no field of any room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from punchbridge.errors import ConfigError

__all__ = ["KIB", "KINDS", "MIB", "Bound", "Bytes", "Checked", "Count", "File", "Seconds", "Share", "Texts", "Whole"]

KIB: Final = 1024
MIB: Final = 1024 * KIB

Count = int
"""A number of things, at least 1."""

Bound = int
"""A number of things, 0 for unlimited."""

Whole = int
"""A whole number, 0 or more, which counts nothing: a version."""

Bytes = int
"""A size, at least 1."""

Seconds = float
"""A time, 0 or more and finite."""

File = str | Path | None
"""The path of a file; None for none."""

Texts = Sequence[str]
"""Several texts; kept as a tuple."""

Share = float
"""A part of something, from 0 to 1."""


def _whole(least: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(most: float) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and 0 <= value <= most

    return fits


KINDS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "Count": (_whole(1), "a whole number of at least 1"),
    "Bound": (_whole(0), "a whole number, 0 for unlimited"),
    "Whole": (_whole(0), "a whole number, 0 or more"),
    "Bytes": (_whole(1), "a whole number of bytes, at least 1"),
    "Seconds": (_number(math.inf), "a number of seconds, 0 or more"),
    "Share": (_number(1.0), "a part from 0 to 1"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (lambda value: isinstance(value, str) and value != "", "a text"),
}
"""For the name of a field's type: what fits, and how that is said. Fields of other types check themselves."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Base of the values of a room. Raises ConfigError for a field that does not fit its unit."""

    def __post_init__(self) -> None:
        for item in fields(self):
            given = getattr(self, item.name)
            kind = KINDS.get(str(item.type))
            if kind is not None and not kind[0](given):
                raise ConfigError(f"{item.name} is {given!r}; give {kind[1]}")
            if str(item.type) in ("Addresses", "Texts"):
                if isinstance(given, str) or not isinstance(given, Sequence):
                    what = "addresses" if str(item.type) == "Addresses" else "texts"
                    raise ConfigError(f"{item.name} takes several {what}: write {item.name}=[{str(given)!r}]")
                object.__setattr__(self, item.name, tuple(given))
            if isinstance(item.default, Checked) and not isinstance(given, type(item.default)):
                raise ConfigError(f"{item.name} is {given!r}; give a {type(item.default).__name__}")
