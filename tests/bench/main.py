"""The benchmark's command line: which parts, how many rounds, and where the figures go."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from typing import Any

from driver import Failed
from figures import Table, progress
from page import machine, write_page

PARTS: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "stream": (
        "one stream, each stack",
        {"rounds": 5, "mib": 192, "echoes": 2000},
        {"rounds": 1, "mib": 4, "echoes": 20},
    ),
    "rpc": ("gRPC on each path", {"rounds": 5, "calls": 1000, "mib": 96}, {"rounds": 1, "calls": 40, "mib": 2}),
    "circuits": (
        "relays",
        {"rounds": 3, "mib": 64, "circuits": 50, "echoes": 1000, "crowd": 1000, "idle": 1000},
        {"rounds": 1, "mib": 4, "circuits": 3, "echoes": 20, "crowd": 10, "idle": 10},
    ),
    "delayed": (
        "set-up and throughput over delayed paths, in the lab",
        {"rounds": 2, "seconds": 5, "skip": 2, "trips": 3, "lossy": 7},
        {"rounds": 1, "seconds": 1, "skip": 0, "trips": 1, "lossy": 1},
    ),
    "idle": (
        "setting up connections, and holding them idle",
        {"rounds": 3, "connections": 400},
        {"rounds": 1, "connections": 10},
    ),
    "startup": ("start of the programs", {"rounds": 5}, {"rounds": 1}),
    "against": (
        "this tree and that of --tree in turns",
        {"rounds": 7, "mib": 96, "echoes": 1000, "calls": 600},
        {"rounds": 1, "mib": 2, "echoes": 20, "calls": 40},
    ),
}
"""Name: (what it measures, sizes of a full run, sizes of a quick one)."""


ROUNDS = (
    "rounds of each part; median and range are taken over them (default: "
    + ", ".join(f"{name} {full['rounds']}" for name, (_, full, _) in PARTS.items())
    + ", with which everything fits in a quarter of an hour on two idle cores)"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the bridge against other stacks, all contenders taking turns in each round.",
        epilog="Parts: " + "; ".join(f"{name} ({what})" for name, (what, _, _) in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all when none is named")
    parser.add_argument("--tree", help="a checkout of another commit, with its .venv, for the part `against`")
    parser.add_argument("--rounds", type=int, help=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that everything runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument("--write", metavar="FILE", help="also write the page, such as docs/records/performance.md")
    options = parser.parse_args()
    parts = options.parts or [name for name in PARTS if name != "against"]
    for name in parts:
        if name not in PARTS:
            parser.error(f"no part {name}; there are {', '.join(PARTS)}")
    if "against" in parts and not options.tree:
        parser.error("the part `against` needs --tree, a checkout of another commit with its .venv")
    began, about = time.time(), machine()
    results: dict[str, list[Table]] = {}
    failed = False
    for name in parts:
        _, full, quick = PARTS[name]
        sizes = dict(quick if options.quick else full)
        if options.rounds and "rounds" in sizes:
            sizes["rounds"] = options.rounds
        progress(f"part {name}")
        try:
            given = {"tree": options.tree} if name == "against" else {}
            results[name] = importlib.import_module(name).run(**given, **sizes)
        except Failed as problem:
            # One part that breaks does not take the figures of the others along.
            results[name] = [Table(f"Part {name}", [], notes=[f"not measured: {problem}"])]
            failed = True
        if not options.json:
            for table in results[name]:
                print(table.text() + "\n", flush=True)
    about["load after"] = machine()["load"]
    about["seconds"] = f"{time.time() - began:.0f}"
    if options.json:
        data: dict[str, Any] = {name: [table.data() for table in tables] for name, tables in results.items()}
        print(json.dumps({"machine": about, "parts": data}))
    if options.write:
        whole = set(parts) >= set(PARTS) - {"against"} and not options.quick
        write_page(options.write, about, results, "scripts/bench " + " ".join(sys.argv[1:]), whole=whole)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
