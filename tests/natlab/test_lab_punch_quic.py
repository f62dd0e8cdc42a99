"""Punching over QUIC between the real programs behind the lab's NATs, alone and beside TCP."""

from __future__ import annotations

import pytest
from runs.report import Report
from runs.scenario import Scenario, run_scenario

from tests.support.built import NOT_BUILT

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(150)]
pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)


def conducted(listener: str, dialer: str, transport: str, block: str = "") -> Report:
    report = run_scenario(Scenario(listener, dialer, transport=transport, block=block, duration=1.0))
    told = {name: program["stderr"] for name, program in report.programs.items()}
    assert report.error == "", told
    assert report.as_expected, (report.scenario["expected"], report.outcome, report.punch, told)
    return report


def won(report: Report) -> dict[str, dict[str, str]]:
    """What each side's success says of the transports."""
    return {who: report.punch[who]["succeeded"]["transports"] for who in ("listener", "dialer")}


@pytest.mark.parametrize(
    "pair",
    [
        ("home", "home"),
        ("cgnat", "eimhash"),
        ("home-rst", "home-icmp"),
        ("firewall", "home"),
        ("home-own", "home"),
        ("ipv6", "ipv6"),
        ("fullcone", "symmetric"),
        ("addr-restricted", "symmetric"),
        ("symmetric", "fullcone"),
        ("symmetric", "addr-restricted"),
    ],
    ids="-".join,
)
def test_quic_alone_at_the_first_attempt(pair: tuple[str, str]) -> None:
    """The last two rows take the dialler's aim at the source of the listener's datagrams."""
    report = conducted(*pair, "quic")
    assert report.proven, (report.proof, report.watched)
    assert {one["protocol"] for one in report.five_tuples} == {"udp"}
    assert report.punch["attempt"] == 1
    assert won(report) == {"listener": {"quic": "DIRECT"}, "dialer": {"quic": "DIRECT"}}


@pytest.mark.parametrize("pair", [("home", "symmetric"), ("symmetric", "home")], ids="-".join)
def test_quic_alone_stays_relayed_where_a_port_cannot_be_known(pair: tuple[str, str]) -> None:
    report = conducted(*pair, "quic")
    assert report.outcome == "relay"
    assert set(report.punch["codes"]) <= {"MAPPING_DEPENDENT", "UDP_BLOCKED"}


def test_both_transports_side_by_side() -> None:
    report = conducted("home", "home", "both")
    assert report.proven, (report.proof, report.watched)
    for told in won(report).values():
        assert set(told) == {"tcp", "quic"}
        assert "DIRECT" in told.values()


def test_where_udp_is_blocked_the_punch_goes_over_tcp() -> None:
    report = conducted("home", "home", "both", block="udp")
    assert report.proven, (report.proof, report.watched)
    assert {one["protocol"] for one in report.five_tuples} == {"tcp"}
    assert {told["tcp"] for told in won(report).values()} == {"DIRECT"}


def test_where_tcp_is_blocked_the_punch_goes_over_quic() -> None:
    report = conducted("home", "home", "both", block="tcp")
    assert report.proven, (report.proof, report.watched)
    assert {one["protocol"] for one in report.five_tuples} == {"udp"}
    assert {told["quic"] for told in won(report).values()} == {"DIRECT"}
