"""All cases in order, how one is run, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from foreign import (
    base,
    between,
    contract,
    grpcjs,
    hops,
    hosts,
    kaspas,
    keys,
    load,
    nats,
    official,
    punches,
    relays,
    rpcs,
    transports,
)
from foreign.cases import Case, NotOffered
from foreign.peer import QUIC, TCP, PeerFailed, Pool

OTHERS = ("rust", "go", "js", "py")
QUIC_OTHERS = ("rust", "go", "js")
"""Those of them that have quic-v1."""
MAX_NOTE = 300


def cases() -> Iterator[Case]:
    yield from base.cases(TCP, OTHERS)
    yield from base.cases(QUIC, QUIC_OTHERS)
    yield from keys.cases()
    yield from transports.cases()
    yield from relays.cases(TCP)
    yield from relays.cases(QUIC)
    yield from between.cases()
    yield from hops.cases(TCP)
    yield from hops.cases(QUIC)
    yield from punches.cases(OTHERS)
    yield from nats.cases()
    yield from contract.cases()
    yield from rpcs.cases()
    yield from hosts.cases()
    yield from grpcjs.cases()
    yield from kaspas.cases()
    yield from official.cases()
    yield from load.cases()


@dataclass(frozen=True)
class Result:
    """`outcome`: pass, fail, theirs (a failure that is known to be the other side's), not offered, skip."""

    group: str
    row: str
    combination: str
    outcome: str
    note: str
    seconds: float

    @property
    def good(self) -> bool:
        return self.outcome != "fail"


def run_case(case: Case, pool: Pool) -> Result:
    """Runs one case; what goes wrong in it is its result."""
    began = time.monotonic()
    outcome, note = "pass", ""
    why = case.unavailable()
    if why is not None:
        outcome, note = "skip", why
    else:
        try:
            note = case.run(pool)
        except NotOffered as problem:
            outcome, note = "not offered", str(problem)
        except (AssertionError, PeerFailed, OSError) as problem:
            why = case.theirs(problem)
            outcome, note = ("theirs", why) if why else ("fail", str(problem) or repr(problem))
    note = " ".join(note.split())[:MAX_NOTE]
    return Result(case.group, case.row, case.combination, outcome, note, round(time.monotonic() - began, 2))
