"""Events: the names that `--json` promises, their JSON form, and the hub."""

from __future__ import annotations

import importlib
import json

import pytest

from punchbridge.cli.reference import catalogue, event_classes
from punchbridge.eventhub import EventHub
from punchbridge.events import Event, NodeStarted, PunchFailed
from punchbridge.verdict import Code, Verdict
from punchbridge_node.events import FlowStats, PathChanged

PROMISED = {
    "node.started", "relay.listening", "reservation.accepted", "reservation.lost", "connection.opened",
    "connection.closed", "punch.started", "punch.succeeded", "punch.failed", "p2p_upgrade", "p2p_fallback",
    "path.changed", "handshake.completed", "flow.stats", "relay.stats", "autonat.result", "error", "summary",
}  # fmt: skip


def test_every_promised_name_has_one_class() -> None:
    names = [kind.name for kind in event_classes()]
    assert set(names) >= PROMISED
    assert len(names) == len(set(names))


def test_the_table_of_events_leaves_no_class_out() -> None:
    """A program that declares an event elsewhere than in its module of events would be missing in the docs."""
    for module in ("punchbridge.cli.report", "punchbridge_relay.program", "punchbridge_node.node"):
        importlib.import_module(module)
    declared = {kind for kind in Event.__subclasses__() if kind.__module__.startswith("punchbridge")}
    assert declared == set(event_classes())


def test_the_vocabulary_of_the_library_knows_no_application() -> None:
    mine = {kind.name for kind in event_classes() if kind.__module__ == "punchbridge.events"}
    foreign = ("handshake.", "flow.", "relay.", "circuit.", "path.", "ping.", "identify.", "summary", "peer.disc")
    assert {name for name in mine if name.startswith(foreign)} == set()


def test_every_event_says_what_it_means() -> None:
    assert [kind.name for kind in catalogue().values() if not (kind.__doc__ or "").strip()] == []


def test_json_form_drops_the_underscore_that_python_needs() -> None:
    event = PathChanged(peer="p", from_="relay", to="direct", reason="punched")
    assert event.as_dict() == {"peer": "p", "from": "relay", "to": "direct", "reason": "punched"}
    assert json.loads(json.dumps(NodeStarted(peer_id="p", listen=("a",)).as_dict())) == {
        "peer_id": "p",
        "listen": ["a"],
    }
    assert FlowStats(peer="p", path="relay", sent={"ping": 1}).as_dict()["sent"] == {"ping": 1}


def test_hub_hands_events_to_all_in_order_until_they_leave() -> None:
    hub, seen = EventHub(), []
    leave = hub.subscribe(lambda event: seen.append(("first", event)))
    hub.subscribe(lambda event: seen.append(("second", event)))
    event = NodeStarted(peer_id="p", listen=())
    hub.emit(event)
    leave()
    leave()
    hub.emit(event)
    assert seen == [("first", event), ("second", event), ("second", event)]


def test_a_subscriber_that_raises_is_reported_and_keeps_no_event_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def slips(event: Event) -> None:
        raise KeyError("a slip in a console line")

    hub, seen = EventHub(), list[Event]()
    hub.subscribe(slips)
    hub.subscribe(seen.append)
    event = NodeStarted(peer_id="p", listen=())
    hub.emit(event)
    hub.emit(event)
    assert seen == [event, event]
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
    assert "node.started" in caplog.text


def test_a_verdict_becomes_keys_of_its_own() -> None:
    verdict = Verdict(Code.RESET_BY_NAT, ("ECONNREFUSEDx3",), "the fourth dial", retry_in=30.0, run=7)
    event = PunchFailed(peer="p", attempt=3, verdict=verdict, side="responder", elapsed_ms=1.0, final=True)
    told = event.as_dict()
    assert tuple(told) == PunchFailed.json_keys()
    assert json.loads(json.dumps(told)) == {
        "peer": "p",
        "attempt": 3,
        "code": "RESET_BY_NAT",
        "message": verdict.message,
        "seen": ["ECONNREFUSEDx3"],
        "retry_in": 30.0,
        "run": 7,
        "side": "responder",
        "elapsed_ms": 1.0,
        "final": True,
        "transports": {},
        "local_candidates": [],
        "remote_candidates": [],
    }
    assert (event.code, event.message, event.seen) == (verdict.code, verdict.message, verdict.seen)
