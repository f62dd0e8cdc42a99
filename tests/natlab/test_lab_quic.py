"""Real QUIC in the lab: proven by the packets of both hosts, through a NAT's reboot and a new address; programs where
one protocol is blocked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from lab import Lab, proof
from runs.scenario import Run, Scenario, run_scenario

from tests.support.built import NOT_BUILT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))

from foreign.peer import Peer

pytestmark = [pytest.mark.natlab, pytest.mark.skipif(find_spec("punchbridge_quic") is None, reason=NOT_BUILT)]

SIZE = 100_000
LISTEN = "/ip4/0.0.0.0/udp/{}/quic-v1"


@contextmanager
def connected(lab: Lab) -> Iterator[tuple[Peer, Peer]]:
    """Our peer at a, and at b the one that has dialled it there."""
    there = Peer("ours", "-listen", LISTEN.format(4101), popen=partial(lab.popen, "a"))
    here = Peer("ours", "-listen", LISTEN.format(4102), popen=partial(lab.popen, "b"))
    try:
        here.ask("dial", addr=f"/ip4/{lab.hosts['a'].address}/udp/4101/quic-v1/p2p/{there.id}")
        yield here, there
    finally:
        here.close()
        there.close()


def carried(lab: Lab, here: Peer, there: Peer) -> list[str]:
    """The protocols of what carried one echo directly, by the proof."""
    before = proof.established_pairs(lab)
    assert here.ask("echo", peer=there.id, size=SIZE)["same"]
    found = proof.direct_pairs(lab, since=before)
    earlier = {pair.tuples: pair for pair in before}
    for pair in found:
        had = earlier.get(pair.tuples)
        assert pair.a.received - (had.a.received if had else 0) > SIZE
        assert pair.b.received - (had.b.received if had else 0) > SIZE
    return [pair.protocol for pair in found]


@pytest.mark.parametrize("nat", ["home", "symmetric"])
def test_a_quic_connection_is_proven_and_outlives_its_nat(nat: str) -> None:
    with Lab("public", nat) as lab, connected(lab) as (here, there):
        assert carried(lab, here, there) == ["udp"]
        lab.nat_reboot("b")
        assert carried(lab, here, there) == ["udp"]
        assert lab.nat_address("b") == lab.hosts["b"].public
        assert carried(lab, here, there) == ["udp"]
        assert len(here.find("opened", peer=there.id)) == 1


def test_loss_does_not_end_a_quic_connection() -> None:
    with Lab("public", "home", delay={"b": 5}, loss={"b": 0.02}) as lab, connected(lab) as (here, there):
        assert carried(lab, here, there) == ["udp"]


def test_where_udp_is_blocked_the_programs_punch_over_tcp() -> None:
    report = run_scenario(Scenario(transport="both", block="udp", duration=1.0))
    assert report.proven, report.as_json()
    assert [pair["protocol"] for pair in report.five_tuples] == ["tcp"]


def test_where_tcp_is_blocked_the_dialer_reaches_the_relay_over_quic() -> None:
    seen: list[object] = []

    def watched(run: Run) -> None:
        seen.extend(one.event["transport"] for one in run.log.find("connection.opened", who="dialer"))

    report = run_scenario(Scenario(transport="both", block="tcp", p2p=False, duration=1.0), hooks={"watched": watched})
    assert report.as_expected, report.as_json()
    assert "quic" in seen
    assert "tcp" not in seen
