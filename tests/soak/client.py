"""The dialling half of a soak run: load over one or more channels while their sessions are moved and cut.

client.py switches --direct ADDR … --circuit ADDR --count N   random moves and kills under load
client.py caps --circuit ADDR --bytes N                       one stream over circuits of a capped relay
client.py gaps --direct ADDR … --circuit ADDR --count N       the longest gap in arrivals of each kind of move
client.py paths --circuit ADDR --count N                      one stream while others break and mend its paths
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter

from common import memory, say
from gaps import gaps
from load import caps
from paths import paths
from switches import switches

import punchbridge
from punchbridge.events import Event, PunchSucceeded, SessionSwitched

SLOW = 1000.0
"""Milliseconds without a carrier from which a switch is told by itself."""


class Switches:
    """Counts the moves that sessions report, and the punches."""

    def __init__(self) -> None:
        self.planned = 0
        self.unplanned = 0
        self.replayed = 0
        self.longest_ms = 0.0
        self.direct = 0
        self.punched = 0
        self.transports: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        if isinstance(event, SessionSwitched) and event.reason != "OPENED":
            self.planned += event.planned
            self.unplanned += not event.planned
            self.replayed += event.replayed
            self.direct += event.to == "direct"
            self.transports[str(event.to_transport)] += 1
            self.longest_ms = max(self.longest_ms, event.gap_ms)
            if event.gap_ms >= SLOW:
                say("slow", gap_ms=event.gap_ms, reason=event.reason, left=event.from_transport, to=event.to_transport)
        elif isinstance(event, PunchSucceeded):
            self.punched += event.how != "dial"

    @property
    def total(self) -> int:
        return self.planned + self.unplanned


def report_memory(over: threading.Event) -> None:
    while not over.wait(1.0):
        say("memory", **memory())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("switches", "caps", "gaps", "paths"))
    parser.add_argument("--direct", action="append", default=[])
    parser.add_argument("--circuit", required=True)
    parser.add_argument("--listen", action="append", default=[], help="listens there, and punches")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=64 << 20)
    arguments = parser.parse_args()
    moves, over = Switches(), threading.Event()
    threading.Thread(target=report_memory, args=(over,), daemon=True).start()
    began = time.monotonic()
    listen = arguments.listen
    with punchbridge.open(listen=listen, punch=bool(listen), events=moves.take) as b:
        if arguments.mode == "switches":
            result = switches(b, arguments.circuit, arguments.direct, lambda: moves.total, arguments.count)
        elif arguments.mode == "caps":
            result = caps(b, arguments.circuit, arguments.bytes)
        elif arguments.mode == "paths":
            result = paths(b, arguments.circuit, arguments.count)
        else:
            result = gaps(b, arguments.circuit, arguments.direct, arguments.count)
    over.set()
    say(
        "result",
        seconds=round(time.monotonic() - began, 1),
        planned=moves.planned,
        unplanned=moves.unplanned,
        replayed=moves.replayed,
        switches_to_direct=moves.direct,
        punched=moves.punched,
        by_transport=dict(moves.transports),
        longest_without_carrier_ms=moves.longest_ms,
        **result,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
