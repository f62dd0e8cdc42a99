"""Each row of docs/interop.md that this machine can run, as a test. `scripts/interop build` first."""

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
    """A known failure that no longer shows fails the test, so that its reason does not outlive it."""
    raises = (AssertionError, PeerFailed, OSError)
    known = pytest.mark.xfail(reason=case.known, raises=raises, strict=not case.sometimes)
    marks = [pytest.mark.timeout(case.seconds), *([known] if case.known else [])]
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [_parameter(case) for case in cases()])
def test_row(case: Case, pool: Pool) -> None:
    why = case.unavailable()
    if why is not None:
        pytest.skip(why)
    try:
        case.run(pool)
    except NotOffered as problem:
        pytest.skip(f"not offered: {problem}")
