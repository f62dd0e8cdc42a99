"""A case in the NAT lab, from both sides: who asks for it, and the process that moves into private namespaces for it.

The order goes over as a JSON argument, what was found comes back as one JSON object on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from lab import LabUnavailable

from foreign.build import REPOSITORY
from foreign.peer import PeerFailed, Pool

LAB_SECONDS = 150


def run_lab(pool: Pool, module: str, **order: object) -> dict[str, object]:
    """One lab case. Raises PeerFailed when the lab cannot be had or the run could not be judged."""
    paths = [str(REPOSITORY / "tests" / "interop"), str(REPOSITORY / "scripts"), str(REPOSITORY)]
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(order)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=LAB_SECONDS,
    )
    try:
        found: dict[str, object] = json.loads(done.stdout)
    except ValueError:
        raise PeerFailed(f"the lab ended with {done.returncode}: {done.stderr[-300:]}") from None
    if "unavailable" in found or "error" in found:
        raise PeerFailed(str(found.get("unavailable") or found.get("error")))
    versions = found.get("versions")
    assert isinstance(versions, dict)
    pool.versions |= versions
    return found


def answer(conduct: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """The whole life of such a process; the exit code."""
    try:
        found = conduct(json.loads(sys.argv[1]))
    except LabUnavailable as problem:
        found = {"unavailable": str(problem)}
    print(json.dumps(found))
    return 0
