"""What a row of the table is: a title, who takes part, and a function that raises when it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foreign.build import unavailable
from foreign.peer import Pool


class NotOffered(Exception):
    """The other implementation has no such thing; the text says what is missing. Neither a pass nor a failure."""


Run = Callable[[Pool], str]
"""Returns a note for the table, possibly empty. Raises AssertionError or PeerFailed when the row does not hold."""


@dataclass(frozen=True)
class Case:
    """One row for one combination of peers. `known`: the reason when a failure is theirs and expected."""

    group: str
    row: str
    combination: str
    kinds: tuple[str, ...]
    run: Run
    known: str = ""
    lab: bool = False
    """Needs network namespaces."""
    seconds: int = 180
    """More than the row takes on a busy machine."""
    sometimes: bool = False
    """The known failure is a race, which the row may also win."""

    @property
    def name(self) -> str:
        return f"{self.group}: {self.row}: {self.combination}"

    def unavailable(self) -> str | None:
        """Why it cannot be run on this machine."""
        return next((why for kind in self.kinds if (why := unavailable(kind)) is not None), None)
