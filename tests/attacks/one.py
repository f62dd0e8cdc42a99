"""Plays one attack in a process of its own: `python -m tests.attacks.one NAME [--short]`; prints its rows as JSON.

Exit status 77 where the attack needs namespaces and none can be made, or the QUIC engine and it is not built.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import resource
import sys

import trio
from lab import session

from tests.attacks.frame import Row, stage
from tests.support.built import NOT_BUILT


async def _play(name: str, *, short: bool) -> list[Row]:
    module = importlib.import_module(f"tests.attacks.{name}")
    rows: list[Row] = []
    async with stage(name.partition("_")[0], short=short) as place:
        rows = await module.main(place)
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.one", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args(arguments)
    try:
        module = importlib.import_module(f"tests.attacks.{options.name}")
    except ModuleNotFoundError as problem:
        if problem.name != "punchbridge_quic":
            raise
        print(NOT_BUILT, file=sys.stderr)
        return session.EXIT_UNAVAILABLE
    if getattr(module, "NAMESPACES", False):
        try:
            session.enter()
        except session.LabUnavailable as problem:
            print(problem, file=sys.stderr)
            return session.EXIT_UNAVAILABLE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = trio.run(lambda: _play(options.name, short=options.short), strict_exception_groups=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(json.dumps([dataclasses.asdict(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
