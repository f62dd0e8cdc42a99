"""What all tests share: Hypothesis profiles (dev 50 examples, ci 300, nightly 10 000; HYPOTHESIS_PROFILE picks one).

Tests beside the stock host, `*_pylibp2p.py`, are left out where py-libp2p is not installed: it holds protobuf below 7,
and the rest must be seen to pass with what users have.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

# The machine that runs the tests may be busy: a slow example is no failure, and a property has no deadline.
_QUIET = (HealthCheck.too_slow,)
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("ci", max_examples=300, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

_STOCK = find_spec("libp2p") is not None
collect_ignore_glob = [] if _STOCK else ["*_pylibp2p.py"]


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The identities that clients keep stand in a folder of the test run, not in that of whoever runs it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


def pytest_report_header() -> str | None:
    return None if _STOCK else "py-libp2p is not installed: *_pylibp2p.py are left out"
