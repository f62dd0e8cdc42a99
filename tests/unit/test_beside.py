"""The punches of a run as its record tells them: both transports, the pauses between them, and the circuits."""

from __future__ import annotations

from typing import Any

from runs import beside


def event(at: float, who: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"at": at, "who": who, "event": name, **fields}


def failed(at: float, who: str, attempt: int, retry_in: float | None = None, **transports: str) -> dict[str, Any]:
    fields = {"attempt": attempt, "elapsed_ms": 900.0, "code": "MAPPING_DEPENDENT", "retry_in": retry_in}
    return event(at, who, "punch.failed", **fields, transports=transports)


RELAYED = {
    "times_s": {"stopping": 40.0},
    "watched": {"circuit_payload_bytes": 4096, "seconds": 5.0},
    "timeline": [
        event(1.0, "relay", "relay.listening", peer_id="R"),
        event(2.0, "listener", "connection.opened", peer="R", transport="tcp"),
        event(3.0, "dialer", "connection.opened", peer="R", transport="quic"),
        event(3.5, "relay", "circuit.opened", circuit=1),
        failed(5.0, "listener", 1, tcp="SYN_FILTERED", quic="MAPPING_DEPENDENT"),
        failed(9.0, "listener", 2, 8.0, tcp="SYN_FILTERED", quic="MAPPING_DEPENDENT"),
        failed(19.5, "listener", 1, tcp="SYN_FILTERED", quic="UDP_BLOCKED"),
        failed(41.0, "listener", 2, tcp="RELAY_LOST"),
        event(41.5, "relay", "circuit.closed", circuit=1),
    ],
}


def test_attempts_are_told_for_both_transports_with_their_pauses() -> None:
    first, second, third = beside.attempts(RELAYED)
    assert first.results == {"tcp": "SYN_FILTERED", "quic": "MAPPING_DEPENDENT"}
    assert (first.pause, second.pause, third.pause) == (None, 4.0, 10.5)
    assert second.retry_in == 8.0


def test_the_summary_has_both_columns_and_the_circuit_that_stood() -> None:
    text = "\n".join(beside.section(RELAYED))
    assert "| 19.500 | listener | 1 | SYN_FILTERED | UDP_BLOCKED | 900 | 10.5 |  |" in text
    assert "- to the relay: dialer over QUIC, listener over TCP" in text
    assert "- circuit 1 from 3.500 s until the programs were stopped" in text
    assert "4096 bytes" in text


def test_the_line_of_the_page() -> None:
    told = beside.line(RELAYED)
    assert told.startswith("attempt 1: TCP SYN_FILTERED, QUIC MAPPING_DEPENDENT; attempt 2: ")
    assert told.endswith(", s between attempts: 4.0, 10.5; circuits: 1, 1 to the end")


def test_a_record_that_names_no_transport_is_of_tcp() -> None:
    succeeded = event(4.0, "listener", "punch.succeeded", attempt=1, elapsed_ms=350.0)
    report = {"times_s": {}, "timeline": [succeeded]}
    assert beside.line(report) == "attempt 1: TCP DIRECT"


def test_a_run_without_punch_and_circuit_has_no_section() -> None:
    assert beside.section({"times_s": {}, "timeline": []}) == []
    assert beside.line({"times_s": {}, "timeline": []}) == ""
