"""How many connections the limit of open files leaves room for."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.cli.process import OTHER_FILES, fitted, fitted_relay
from punchbridge.config import Limits, LocalLimits, SwarmLimits

PLAIN = Limits()


def test_with_room_for_all_nothing_changes() -> None:
    for files in (20_000, 1_048_576, None):
        assert fitted(PLAIN, files) is PLAIN or fitted(PLAIN, files) == PLAIN
        assert fitted_relay(PLAIN, files) == PLAIN


def test_1024_files() -> None:
    bridge, relay = fitted(PLAIN, 1024), fitted_relay(PLAIN, 1024)
    assert (bridge.swarm.connections, bridge.local.served_streams, bridge.local.forwarded) == (448, 224, 112)
    assert bridge.local.served_streams_per_peer == 224
    assert relay.swarm.connections == 896
    assert relay.local == PLAIN.local


def test_what_is_set_lower_stays_and_no_limit_becomes_one() -> None:
    few = Limits(swarm=SwarmLimits(connections=10), local=LocalLimits(served_streams=3, served_streams_per_peer=2))
    assert fitted(few, 1024).swarm.connections == 10
    assert fitted(few, 1024).local.served_streams == 3
    assert fitted(few, 1024).local.served_streams_per_peer == 2
    endless = Limits(swarm=SwarmLimits(connections=0))
    assert fitted(endless, 1024).swarm.connections == 448
    assert fitted_relay(endless, 1024).swarm.connections == 896
    assert fitted_relay(endless, None).swarm.connections == 0


@given(st.integers(0, 1 << 20))
def test_there_is_always_some_room_and_never_more_than_files(files: int) -> None:
    bridge, relay = fitted(PLAIN, files), fitted_relay(PLAIN, files)
    taken = bridge.swarm.connections + bridge.local.served_streams + bridge.local.forwarded
    assert min(bridge.swarm.connections, bridge.local.served_streams, bridge.local.forwarded) >= 1
    assert taken <= max(files, 3)
    assert 1 <= relay.swarm.connections <= max(files, 1)
    if files > 2 * OTHER_FILES:
        assert taken <= files - OTHER_FILES
        assert relay.swarm.connections <= files - OTHER_FILES


def test_a_relay_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fitted_relay(PLAIN, 20_000)
        assert caplog.messages == []
        fitted_relay(PLAIN, 1024)
    (told,) = caplog.messages
    assert told == "1024 open files are allowed, so 896 connections and not 2048; raise the hard limit (ulimit -Hn)"
