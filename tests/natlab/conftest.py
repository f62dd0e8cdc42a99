"""Each lab test runs in a forked child that has moved into private namespaces.

So the test run itself keeps its network and its threads, a crash of the lab cannot take it along, and the
kernel's rule that only single-threaded processes may enter a user namespace is met.
"""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from lab import LabUnavailable, session

_HERE = Path(__file__).resolve().parent
_PIPE_BYTES = 65_536


def _in_child(item: pytest.Item, write_fd: int) -> None:
    session.child_setup(None)()
    reports = runtestprotocol(item, log=False, nextitem=None)
    hook = item.config.hook
    data = [hook.pytest_report_to_serializable(config=item.config, report=report) for report in reports]
    with os.fdopen(write_fd, "w") as pipe:
        json.dump(data, pipe)


def _failed(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, dict(item.keywords), "failed", text, "call", [])


def _forked(item: pytest.Item) -> list[Any]:
    read_fd, write_fd = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads: the child has one
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read_fd)
            _in_child(item, write_fd)
            status = 0
        finally:
            os._exit(status)
    os.close(write_fd)
    received = b""
    try:
        while chunk := os.read(read_fd, _PIPE_BYTES):
            received += chunk
    except pytest.fail.Exception as timeout:  # pytest-timeout's alarm
        return [_failed(item, str(timeout))]
    finally:
        os.close(read_fd)
        if not received:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if status != 0:
        return [_failed(item, f"the test's process ended with wait status {status}")]
    hook = item.config.hook
    return [hook.pytest_report_from_serializable(config=item.config, data=data) for data in json.loads(received)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if _HERE not in item.path.parents or item.get_closest_marker("natlab") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _forked(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(autouse=True)
def private_session(request: pytest.FixtureRequest) -> None:
    """Move into private namespaces; the only reason to skip a lab test is that none can be made."""
    if request.node.get_closest_marker("natlab") is None:
        return
    try:
        session.enter()
    except LabUnavailable as error:
        pytest.skip(str(error))
