"""What a row of the table is: a title, who takes part, and a function that raises when it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foreign.build import no_engine, unavailable
from foreign.peer import QUIC, TCP, Pool


class NotOffered(Exception):
    """The other implementation has no such thing; the text says what is missing. Neither a pass nor a failure."""


Run = Callable[[Pool], str]
"""Returns a note for the table, possibly empty. Raises AssertionError or PeerFailed when the row does not hold."""


@dataclass(frozen=True)
class Known:
    """An expected failure that is theirs. `shows`: words of it, so that no other failure passes for it."""

    why: str
    shows: str
    sometimes: bool = False
    """A race, which the row may also win."""


@dataclass(frozen=True)
class Case:
    """One row for one combination of peers."""

    group: str
    row: str
    combination: str
    kinds: tuple[str, ...]
    run: Run
    known: Known | None = None
    lab: bool = False
    """Needs network namespaces."""
    seconds: int = 180
    """More than the row takes on a busy machine."""
    ahead: Callable[[Pool], object] | None = None
    """Begins what then only needs time, so that it passes while other rows run. `run` alone does it, too."""
    transport: str = TCP

    @property
    def name(self) -> str:
        return f"{self.group}: {self.row}: {self.combination}"

    def theirs(self, problem: Exception) -> str | None:
        """Why this failure is theirs, None when it is not the known one."""
        return self.known.why if self.known and self.known.shows in str(problem) else None

    def unavailable(self) -> str | None:
        """Why it cannot be run on this machine."""
        lacking = no_engine() if self.transport == QUIC and "ours" in self.kinds else None
        return lacking or next((why for kind in self.kinds if (why := unavailable(kind)) is not None), None)
