"""JSON lines, console lines and exit codes as values: no program runs here."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from punchbridge import errors
from punchbridge.cli import relay
from punchbridge.cli.console import Console
from punchbridge.cli.events import Summary
from punchbridge.cli.exits import MEANING, Exit, exit_code, leaves
from punchbridge.cli.jsonl import JsonLines, encode
from punchbridge.cli.lines import LINES, short, spot
from punchbridge.cli.reference import event_classes
from punchbridge.cli.report import Reporter, describe, run
from punchbridge.config import Programs
from punchbridge.events import (
    ErrorEvent,
    Event,
    Identified,
    PunchSucceeded,
    ReservationAccepted,
    ReservationLost,
    SessionSwitched,
)
from punchbridge.verdict import Code, Verdict
from punchbridge_node.commands import lines
from punchbridge_node.events import FlowStats, HandshakeCompleted, PathChanged
from punchbridge_relay.events import RelayStats

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def test_golden_lines() -> None:
    changed = PathChanged(peer="12D3", from_="relay", to="direct", reason="punched through")
    assert encode(changed, 7, NOW) == (
        '{"v":1,"seq":7,"ts":"2026-01-02T03:04:05.678901Z","event":"path.changed",'
        '"peer":"12D3","from":"relay","to":"direct","reason":"punched through"}'
    )
    stats = RelayStats(reservations=1, circuits=2, bytes_=3, refused={"NO_RESERVATION": 4})
    assert encode(stats, 0, NOW).endswith(
        '"event":"relay.stats","reservations":1,"circuits":2,"bytes":3,"refused":{"NO_RESERVATION":4},"per_circuit":[],"refused_from":[]}'
    )
    summary = Summary(exit_code=4, path="relay", seconds=1.23456)
    assert json.loads(encode(summary, 1, NOW))["seconds"] == 1.235


def test_private_events_are_not_printed() -> None:
    out = io.StringIO()
    lines = JsonLines(out, clock=lambda: NOW)
    lines(Identified(connection=1, peer="p", agent="", protocols=(), listen=(), observed=None))
    lines(ErrorEvent(code="X", message="y"))
    lines.close()
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["seq"] == 0


class Stuck(io.StringIO):
    """A stream whose reader takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.writing.set()
        assert self.go.wait(10)
        return super().write(text)


def test_a_slow_reader_loses_the_oldest_and_sees_the_gap() -> None:
    out = Stuck()
    lines = JsonLines(out, clock=lambda: NOW, programs=Programs(events=4))
    lines(ErrorEvent(code="0", message=""))
    assert out.writing.wait(10)  # the first line is with the reader
    for number in range(1, 11):
        lines(ErrorEvent(code=str(number), message=""))
    out.go.set()
    lines.close()
    assert [json.loads(line)["seq"] for line in out.getvalue().splitlines()] == [0, 7, 8, 9, 10]
    assert lines.dropped == 6


def test_other_bounds_hold_for_what_waits_already() -> None:
    out = Stuck()
    lines = JsonLines(out, clock=lambda: NOW)
    lines(ErrorEvent(code="0", message=""))
    assert out.writing.wait(10)
    for number in range(1, 11):
        lines(ErrorEvent(code=str(number), message=""))
    lines.follow(Programs(events=2))
    lines(ErrorEvent(code="11", message=""))
    out.go.set()
    lines.close()
    assert [json.loads(line)["seq"] for line in out.getvalue().splitlines()] == [0, 10, 11]
    assert lines.dropped == 9


def test_a_reader_that_takes_nothing_is_not_awaited_for_ever() -> None:
    out = Stuck()
    lines = JsonLines(out, clock=lambda: NOW, programs=Programs(report_flush=0.0))
    lines(ErrorEvent(code="0", message=""))
    lines.close()
    assert not out.go.is_set()
    assert out.getvalue() == ""
    out.go.set()


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_left_is_told_once() -> None:
    told: list[OSError] = []
    lines = JsonLines(Broken(), clock=lambda: NOW, on_broken=told.append)
    lines(ErrorEvent(code="a", message=""))
    lines.close()
    lines(ErrorEvent(code="b", message=""))
    assert [type(one) for one in told] == [BrokenPipeError]


def test_every_error_class_has_an_exit_code() -> None:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.BridgeError):
            assert exit_code(value.__new__(value)) in Exit
    assert exit_code(errors.WrongPeer("x")) is Exit.AUTHENTICATION
    assert exit_code(errors.RelayRefused("x", "NO_RESERVATION")) is Exit.RELAY_REFUSED
    assert exit_code(errors.DialTimeout("x")) is Exit.UNREACHABLE
    assert exit_code(errors.AddressError("x")) is Exit.USAGE
    assert exit_code(errors.DirectRequired("x", Verdict(Code.TIMEOUT))) is Exit.RELAYED
    assert exit_code(ValueError("x")) is Exit.ERROR
    assert exit_code(ValueError("x"), {ValueError: Exit.USAGE}) is Exit.USAGE
    assert set(MEANING) == set(Exit)


def test_leaves_of_nested_groups() -> None:
    one, two = ValueError(1), KeyError(2)
    group = BaseExceptionGroup("a", [BaseExceptionGroup("b", [one]), two])
    assert list(leaves(group)) == [one, two]
    assert list(leaves(one)) == [one]


def program(problem: BaseException | None) -> tuple[int, list[dict[str, object]], str]:
    out, talk = io.StringIO(), io.StringIO()
    report = Reporter(json=True, stdout=out, stderr=talk, environment={})

    def work() -> int:
        if problem is not None:
            raise problem
        return 0

    code = run(work, report)
    return code, [json.loads(line) for line in out.getvalue().splitlines()], talk.getvalue()


@pytest.mark.parametrize(
    ("problem", "code", "word"),
    [
        (errors.IdentityError("chmod it"), 5, "BAD_KEY"),
        (ExceptionGroup("g", [ExceptionGroup("h", [errors.PortInUse("taken")])]), 2, "PORT_IN_USE"),
        (OSError(28, "No space left on device"), 1, "OS"),
        (ZeroDivisionError("oh"), 1, "INTERNAL"),
    ],
)
def test_a_failure_is_told_once_and_the_summary_is_last(problem: Exception, code: int, word: str) -> None:
    status, events, talk = program(problem)
    assert status == code
    assert [(one["event"], one.get("code")) for one in events] == [("error", word), ("summary", None)]
    assert events[-1]["exit_code"] == code
    assert talk.count("\n") == 1
    assert talk.startswith(f"error {word}: ")


@pytest.mark.parametrize(
    ("problem", "code"),
    [(None, 0), (KeyboardInterrupt(), 130), (BaseExceptionGroup("g", [KeyboardInterrupt()]), 130), (SystemExit(0), 0)],
)
def test_an_end_without_a_failure(problem: BaseException | None, code: int) -> None:
    status, events, talk = program(problem)
    assert (status, talk) == (code, "")
    assert [one["event"] for one in events] == ["summary"]


def test_describe_names_a_defect_as_one() -> None:
    assert describe(KeyError("x"))[0] == "INTERNAL"
    assert "defect" in describe(KeyError("x"))[1]
    assert describe(errors.ConfigError("why"))[0:2] == ("CONFIG", "why")


def test_console_says_each_thing_once() -> None:
    out = io.StringIO()
    console = Console(out, live=False, color=False, lines=lines.LINES)
    same = FlowStats(peer="12D3KooWabcdefgh", path="relay", sent={"ping": 1}, received={})
    console(same)
    console(same)
    console.progress("waiting")
    console.progress("waiting")
    console.progress(None)
    console.close()
    assert out.getvalue() == "…abcdefgh relay: 1 messages sent, 0 received\nwaiting …\n"


def test_what_peers_say_passes_a_stdout_of_any_encoding() -> None:
    for encoding in ("ascii", "latin-1", "utf-8"):
        raw = io.BytesIO()
        lines = JsonLines(io.TextIOWrapper(raw, encoding=encoding, write_through=True))
        lines(ErrorEvent(code="X", message="naïve → \ud800 名"))
        lines(ErrorEvent(code="Y", message="goes on"))
        lines.close()
        told = [json.loads(line) for line in raw.getvalue().decode(encoding).splitlines()]
        assert [one["message"] for one in told] == ["naïve → \ud800 名", "goes on"]
        raw = io.BytesIO()
        report = Reporter(stdout=io.TextIOWrapper(raw, encoding=encoding), stderr=io.StringIO())
        report.data("naïve → 名")
        assert raw.getvalue().decode(encoding).startswith("na")


def test_console_says_again_what_was_undone_in_between() -> None:
    out = io.StringIO()
    console = Console(out, live=False, color=False)
    relay = "12D3KooWKsMANy8mJXDnKPxuiJwZPHucjHdi4uPDmbL4qVQfGiDM"
    address = f"/ip4/203.0.113.7/tcp/4001/p2p/{relay}"
    accepted = ReservationAccepted(relay=relay, addrs=(), expires=0)
    why = f"{relay} cannot be reached: {address}: Connection refused; is it running, and is the address up to date?"
    for _ in range(2):
        console(accepted)
        console(accepted)
        console(ReservationLost(relay=relay, code="UNREACHABLE", message=why, retry_in=0.5))
    console.close()
    lines = out.getvalue().splitlines()
    assert [line.split(" ")[1] for line in lines] == ["accepted", "lost", "accepted", "lost"]
    assert "…qVQfGiDM: Connection refused; is it running" in lines[1]


def test_live_console_repaints_one_line() -> None:
    out = io.StringIO()
    console = Console(out, live=True, color=True, clock=lambda: 5.0)
    console.progress("waiting")
    console.line("something", "good")
    console.close()
    text = out.getvalue()
    assert text.startswith("waiting … 0 s")
    assert "\r\x1b[2K\x1b[32msomething\x1b[0m\nwaiting … 0 s" in text
    assert text.endswith("\r\x1b[2K")


def line_of(event: Event) -> tuple[str, str]:
    return LINES[type(event)](event)


def test_every_public_event_that_a_person_should_see_has_a_line() -> None:
    silent = {"summary", "ping.result", "identify.result", "p2p_upgrade", "address.observed", "local.listening"}
    shown = {**LINES, **relay.LINES, **lines.LINES}
    assert {kind.name for kind in event_classes() if kind.public and kind not in shown} == silent
    assert len(shown) == len(LINES) + len(relay.LINES) + len(lines.LINES)
    assert Summary not in shown


def test_a_plain_dial_is_not_called_a_punch() -> None:
    event = PunchSucceeded(
        peer="12D3KooWabcdefgh",
        attempt=0,
        elapsed_ms=12.4,
        local="/ip4/192.0.2.1/tcp/1",
        remote="/ip4/192.0.2.2/tcp/2",
        side="initiator",
        how="dial",
        dials=0,
    )
    ends = "192.0.2.1:1 ↔ 192.0.2.2:2"
    assert line_of(event) == (f"direct to …abcdefgh without a punch, in 12 ms: {ends}", "good")
    assert line_of(replace(event, attempt=2)) == (f"punched through to …abcdefgh in 12 ms, attempt 2: {ends}", "good")


def test_a_session_tells_what_a_switch_cost() -> None:
    planned = SessionSwitched(
        session="s", peer="12D3KooWabcdefgh", from_="relay", to="direct", reason="punched through", planned=True
    )
    assert line_of(planned) == ("session with …abcdefgh goes on: relay → direct (punched through)", "dim")
    over = replace(planned, from_="direct", reason="LOSS", from_transport="tcp", to_transport="quic")
    assert line_of(over) == ("session with …abcdefgh goes on: direct, tcp → direct, quic (LOSS)", "dim")
    opened = replace(planned, from_="none", to="relay", reason="OPENED")
    assert line_of(opened) == ("session with …abcdefgh opened, path relay", "dim")
    lost = replace(planned, from_="direct", to="relay", reason="lost", planned=False, gap_ms=120.4, replayed=512)
    assert line_of(lost) == (
        "session with …abcdefgh goes on: direct → relay (lost) after 120 ms, 512 bytes sent again",
        "plain",
    )


def test_short_forms() -> None:
    assert short("12D3KooWCVLPNH5tbjrw45dZ2N4SpUKd2SNZDyMMzUkHCQtqqYov") == "…CQtqqYov"
    assert short("10.0.0.1") == "10.0.0.1"
    relay = "12D3KooWCVLPNH5tbjrw45dZ2N4SpUKd2SNZDyMMzUkHCQtqqYov"
    assert spot(f"/ip4/192.0.2.1/tcp/4001/p2p/{relay}/p2p-circuit") == "192.0.2.1:4001"
    assert spot("/ip4/192.0.2.1/tcp/443/tls/ws") == "/ip4/192.0.2.1/tcp/443/tls/ws"
    assert spot("/ip6/2001:db8::1/tcp/4001") == "[2001:db8::1]:4001"
    assert spot("/p2p-circuit") == "/p2p-circuit"


def test_what_a_peer_says_moves_no_cursor() -> None:
    stderr, stdout = io.StringIO(), io.StringIO()
    report = Reporter(stdout=stdout, stderr=stderr, lines=lines.LINES)
    evil = "kaspad\x1b[2J\x1b]0;owned\x07\rerror\nfaked line\x9b31m\u202egnp"
    report.emit(HandshakeCompleted(peer="12D3KooWpeer", path="direct", user_agent=evil))
    report.data(f"listen {evil}")
    for text in (stderr.getvalue(), stdout.getvalue()):
        assert text.count("\n") == 1
        assert text.rstrip("\n").isprintable()
        assert "kaspad" in text
