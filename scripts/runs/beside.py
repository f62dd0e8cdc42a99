"""The punches of a recorded run, TCP beside QUIC: what each attempt came to over each, when the next one followed, and
how long the pair stood on the relay. Reads a report; judges nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Attempt", "attempts", "line", "section"]

Data = Mapping[str, Any]

TRANSPORTS = {"tcp": "TCP", "quic": "QUIC"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended, as one side told it. `results`: by transport; seconds.

    `pause`: since that side's attempt before, None for its first. `retry_in`: until the next run, where one was told.
    """

    who: str
    at: float
    number: int
    results: Mapping[str, str]
    elapsed_ms: float | None
    pause: float | None
    retry_in: float | None


def attempts(report: Data) -> list[Attempt]:
    """Every attempt whose end was told before the programs were stopped, in order of time."""
    until = report["times_s"].get("stopping", float("inf"))
    last: dict[str, float] = {}
    found = []
    for event in report["timeline"]:
        if event["event"] not in ("punch.succeeded", "punch.failed") or event["at"] >= until:
            continue
        who, at = str(event["who"]), float(event["at"])
        # Records of programs that spoke TCP alone name no transport.
        only = "DIRECT" if event["event"] == "punch.succeeded" else str(event.get("code"))
        results = event.get("transports") or {event.get("transport", "tcp"): only}
        pause = at - last[who] if who in last else None
        found.append(Attempt(who, at, event["attempt"], results, event.get("elapsed_ms"), pause, event.get("retry_in")))
        last[who] = at
    return found


def _circuits(report: Data) -> Iterator[tuple[int, float, float | None]]:
    """(number, opened, closed) of each circuit at the relay; None for one that stood until the programs ended."""
    closed = {event["circuit"]: event["at"] for event in report["timeline"] if event["event"] == "circuit.closed"}
    until = report["times_s"].get("stopping", float("inf"))
    for event in report["timeline"]:
        if event["event"] == "circuit.opened":
            end = closed.get(event["circuit"])
            yield event["circuit"], event["at"], end if end is not None and end < until else None


def _to_relay(report: Data) -> Mapping[str, str]:
    """The transport over which each program first reached the relay; older records tell none, which was TCP."""
    relay = next((event["peer_id"] for event in report["timeline"] if event["event"] == "relay.listening"), None)
    found: dict[str, str] = {}
    for event in report["timeline"]:
        if event["event"] == "connection.opened" and event.get("peer") == relay and event["who"] != "relay":
            found.setdefault(event["who"], TRANSPORTS[event.get("transport") or "tcp"])
    return found


def _relay_lines(report: Data) -> Iterable[str]:
    reached = _to_relay(report)
    if reached:
        yield "- to the relay: " + ", ".join(f"{who} over {name}" for who, name in sorted(reached.items()))
    for number, opened, closed in _circuits(report):
        end = "until the programs were stopped" if closed is None else f"until {closed:.3f} s ({closed - opened:.1f} s)"
        yield f"- circuit {number} from {opened:.3f} s {end}"
    watched = report.get("watched") or {}
    if watched.get("circuit_payload_bytes") is not None:
        yield f"- payload on circuits while watched: {watched['circuit_payload_bytes']} bytes in {watched['seconds']} s"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def section(report: Data) -> list[str]:
    """The section of a run's summary; nothing when no attempt and no circuit was told."""
    rows = [
        f"| {one.at:.3f} | {one.who} | {one.number} | {one.results.get('tcp', '')} | {one.results.get('quic', '')} | "
        f"{_number(one.elapsed_ms, '.0f')} | {_number(one.pause, '.1f')} | {_number(one.retry_in, '.1f')} |"
        for one in attempts(report)
    ]
    held = list(_relay_lines(report))
    if not rows and not held:
        return []
    lines = ["## Punches: TCP beside QUIC, and the relay", ""]
    if rows:
        head = ("s", "who", "attempt", *TRANSPORTS.values(), "ms", "s since its last", "next run in s")
        lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]
    return [*lines, *held, ""]


def _results(one: Attempt) -> str:
    return ", ".join(f"{name} {one.results[key]}" for key, name in TRANSPORTS.items() if key in one.results)


def _cadence(told: Sequence[Attempt]) -> str:
    pauses = [f"{one.pause:.1f}" for one in told if one.pause is not None]
    return f", s between attempts: {', '.join(pauses)}" if pauses else ""


def line(report: Data) -> str:
    """One line for the page of all scenarios: what the listener's attempts came to, and the circuits; "" for neither.

    The listener is the side that asks for the punch.
    """
    told = [one for one in attempts(report) if one.who == "listener"]
    punched = "; ".join(f"attempt {one.number}: {_results(one)}" for one in told) + _cadence(told)
    circuits = list(_circuits(report))
    standing = sum(closed is None for _, _, closed in circuits)
    relayed = f"circuits: {len(circuits)}, {standing} to the end" if circuits else ""
    return "; ".join(filter(None, (punched, relayed)))
