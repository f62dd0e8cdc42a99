"""Each row of docs/records/interop.md that this machine can run, as a test. `scripts/interop build` first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from foreign.cases import Case, NotOffered
from foreign.peer import PeerFailed, Pool
from foreign.suite import cases

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool() as peers:
        yield peers


def _parameter(case: Case) -> object:
    return pytest.param(case, id=case.name, marks=pytest.mark.timeout(case.seconds))


@pytest.mark.parametrize("case", [_parameter(case) for case in cases()])
def test_row(case: Case, pool: Pool) -> None:
    why = case.unavailable()
    if why is not None:
        pytest.skip(why)
    try:
        case.run(pool)
    except NotOffered as problem:
        pytest.skip(f"not offered: {problem}")
    except (AssertionError, PeerFailed, OSError) as problem:
        theirs = case.theirs(problem)
        if theirs is None:
            raise
        pytest.xfail(theirs)
    if case.known and not case.known.sometimes:
        pytest.fail(f"this failure no longer shows, so its reason is to go: {case.known.why}")
