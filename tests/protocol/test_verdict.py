"""The table of punch outcomes and the judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from punchbridge.reach.nat import Mapping
from punchbridge.reach.verdict import Evidence, UdpEvidence, choose, judge, judge_udp
from punchbridge.sessions import SessionRefusal
from punchbridge.verdict import TABLE, Code, Verdict, new_run


def test_the_table_has_one_complete_row_for_each_code() -> None:
    assert set(TABLE) == set(Code)
    for code, row in TABLE.items():
        assert row.code is code
        assert row.meaning.endswith(".")
        assert row.advice.endswith(".")


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (Evidence(), Code.TIMEOUT),
        (Evidence(dials=1), Code.SYN_FILTERED),
        (Evidence(dials=1, mapping=Mapping.ADDRESS_DEPENDENT), Code.MAPPING_DEPENDENT),
        (Evidence(dials=1, mapping=Mapping.ENDPOINT_INDEPENDENT), Code.SYN_FILTERED),
        (Evidence(dials=1, remote_dependent=True), Code.MAPPING_DEPENDENT),
        (Evidence(dials=9, errors=Counter(ECONNREFUSED=9)), Code.RESET_BY_NAT),
        (Evidence(dials=9, errors=Counter(EHOSTUNREACH=5, ECONNREFUSED=4)), Code.UNREACHABLE_BY_NAT),
        (Evidence(local_errors=Counter(EACCES=3)), Code.LOCAL_FIREWALL),
        (Evidence(local_errors=Counter(EADDRINUSE=3)), Code.PORT_BUSY),
        (Evidence(local_errors=Counter(ENETUNREACH=3)), Code.NO_ROUTE),
        (Evidence(dials=1, sockets=1, upgrades=["SILENT"]), Code.BLACK_HOLED),
        (Evidence(dials=1, sockets=1, upgrades=["PROTOCOL"]), Code.ROLE_CLASH),
        (Evidence(dials=1, sockets=2, upgrades=["SILENT", "WRONG_PEER"]), Code.WRONG_PEER),
        (Evidence(taken=9), Code.BLACK_HOLED),
        (Evidence(taken=9, mapping=Mapping.ADDRESS_DEPENDENT), Code.MAPPING_DEPENDENT),
        (Evidence(taken=1, errors=Counter(ECONNREFUSED=1), dials=1), Code.RESET_BY_NAT),
        (Evidence(sockets=1, local_errors=Counter(EADDRNOTAVAIL=4), upgrades=["SILENT"]), Code.BLACK_HOLED),
    ],
)
def test_judge(evidence: Evidence, code: Code) -> None:
    assert judge(evidence) == Verdict(code, evidence.seen())


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (UdpEvidence(), Code.TIMEOUT),
        (UdpEvidence(dials=1, failed=["SILENT"]), Code.UDP_BLOCKED),
        (UdpEvidence(datagrams=9), Code.UDP_BLOCKED),
        (UdpEvidence(dials=1, mapping=Mapping.ADDRESS_DEPENDENT), Code.MAPPING_DEPENDENT),
        (UdpEvidence(dials=1, mapping=Mapping.ENDPOINT_INDEPENDENT), Code.UDP_BLOCKED),
        (UdpEvidence(dials=1, mapping=Mapping.ADDRESS_DEPENDENT, relays_silent=True), Code.UDP_BLOCKED),
        (UdpEvidence(dials=2, heard=3, remote_dependent=True, failed=["SILENT"] * 2), Code.MAPPING_DEPENDENT),
        (UdpEvidence(dials=1, heard=3, failed=["SILENT"]), Code.BLACK_HOLED),
        (UdpEvidence(dials=1, heard=3, relays_silent=True), Code.BLACK_HOLED),
        (UdpEvidence(datagrams=9, arrived=1, failed=["CONNECTION_LOST"]), Code.UNKNOWN),
        (UdpEvidence(dials=2, failed=["SILENT", "WRONG_PEER"]), Code.WRONG_PEER),
        (UdpEvidence(no_route=True), Code.NO_ROUTE),
    ],
)
def test_judge_udp(evidence: UdpEvidence, code: Code) -> None:
    assert judge_udp(evidence) is code


@pytest.mark.parametrize(
    ("tcp", "udp", "code"),
    [
        (Code.SYN_FILTERED, Code.UDP_BLOCKED, Code.SYN_FILTERED),
        (None, Code.UDP_BLOCKED, Code.UDP_BLOCKED),
        (Code.RESET_BY_NAT, None, Code.RESET_BY_NAT),
        (Code.TIMEOUT, Code.MAPPING_DEPENDENT, Code.MAPPING_DEPENDENT),
        (Code.UNKNOWN, Code.TIMEOUT, Code.UNKNOWN),
        (Code.SYN_FILTERED, Code.WRONG_PEER, Code.WRONG_PEER),
        (None, None, Code.TIMEOUT),
    ],
)
def test_one_code_for_an_attempt_over_both(tcp: Code | None, udp: Code | None, code: Code) -> None:
    assert choose(tcp, udp) is code


def test_what_udp_showed_is_told_apart() -> None:
    evidence = UdpEvidence(dials=2, failed=["SILENT", "SILENT"], heard=3, relays_silent=True)
    assert evidence.seen() == ("udp:SILENTx2", "udp:heardx3", "udp:relay-silent")


def test_seen_counts_and_message_tells_what_to_do() -> None:
    evidence = Evidence(dials=3, errors=Counter(ECONNREFUSED=3), upgrades=["SILENT"])
    assert evidence.seen() == ("ECONNREFUSEDx3", "SILENT")
    verdict = replace(judge(evidence), detail="the fourth dial")
    row = TABLE[Code.BLACK_HOLED]
    assert verdict.advice == row.advice
    assert verdict.message == f"the fourth dial: {row.meaning} {row.advice}"
    assert str(verdict) == "BLACK_HOLED"


def test_a_maker_that_knows_better_advice_gives_it() -> None:
    assert Verdict(Code.RESET_BY_NAT, advice="Ask the operator.").message.endswith(" Ask the operator.")


def test_a_verdict_has_a_code_of_the_table() -> None:
    with pytest.raises(KeyError):
        Verdict("ELSEWHERE", advice="Look there.")  # type: ignore[arg-type]


def test_a_session_that_is_refused_for_its_path_gives_a_verdict_of_the_table() -> None:
    assert Verdict(Code[SessionRefusal.PATH_NOT_ALLOWED.name]).row is TABLE[Code.PATH_NOT_ALLOWED]


def test_runs_are_counted_from_one_and_never_repeat() -> None:
    first, second = new_run(), new_run()
    assert 0 < first < second


def test_the_troubleshooting_page_is_made_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
    text = page.read_text()
    for row in TABLE.values():
        section = f"### `{row.code.value}`\n\n{row.meaning}\n\n- **What to do:** {row.advice}\n"
        assert section in text, "out of date: run scripts/gen-docs"
