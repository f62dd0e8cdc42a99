"""The line on the console for each event of the library, and the short forms of ids and addresses in it.

A program with events of its own has a table of the same form beside its commands. Texts only; nothing is printed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from punchbridge import events
from punchbridge.addresses import endpoint_of, parse
from punchbridge.errors import AddressError
from punchbridge.events import Event

Tone = Literal["good", "plain", "dim", "warn", "bad"]
Lines = Mapping[type[Event], Callable[[Any], tuple[str, Tone]]]
"""How each class of events becomes a text and a tone. A class that is missing is not shown to a person."""

_PEER_ID: Final = re.compile(r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|Qm[1-9A-HJ-NP-Za-km-z]{44}")


def short(peer: str) -> str:
    """A peer id as people compare them: the last eight characters (the first are the same for all Ed25519 keys)."""
    return peer if len(peer) <= 12 else f"…{peer[-8:]}"


def spot(address: str) -> str:
    """Where a printed multiaddr leads first, as people write it: HOST:PORT, of QUIC HOST:PORT/quic. Text in and out."""
    try:
        endpoint = endpoint_of(parse(address))
    except AddressError:
        return address
    if endpoint is None:
        return address
    host = f"[{endpoint.host}]" if endpoint.kind == "ip6" else endpoint.host
    return f"{host}:{endpoint.port}{'/quic' if endpoint.proto == 'udp' else ''}"


def _soon(seconds: float | None) -> str:
    return f"; next try in {seconds:.1f} s" if seconds else ""


def _cut(text: str, most: int = 160) -> str:
    """A long text at one line's length, peer ids shortened first: the reason stands last. The event has it all."""
    text = _PEER_ID.sub(lambda found: short(found[0]), text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def ms(value: float | None) -> str:
    return "" if value is None else f" {value:.0f} ms"


def _reservation(event: events.ReservationAccepted) -> tuple[str, Tone]:
    verb = "renewed" if event.renewed else "accepted"
    return f"reservation {verb} by relay {short(event.relay)}", "dim" if event.renewed else "good"


def _reservation_lost(event: events.ReservationLost) -> tuple[str, Tone]:
    text = f": {_cut(event.message)}" if event.message else ""
    return f"reservation lost at relay {short(event.relay)} ({event.code}{text}){_soon(event.retry_in)}", "warn"


def _key_shared(event: events.KeyShared) -> tuple[str, Tone]:
    kept = "that one" if event.code == "REPLACED_BY_SAME_KEY" else "this one"
    return (
        f"two programs run with this key, and {kept} is reached over relay {short(event.relay)} ({event.code}); "
        "give each a key of its own with --key",
        "warn",
    )


def _opened(event: events.ConnectionOpened) -> tuple[str, Tone]:
    how = "punched" if event.punched else "accepted" if event.inbound else "dialled"
    over = "directly at" if event.path == "direct" else "over the relay at"
    return f"connected to {short(event.peer)} {over} {spot(event.remote)} ({how})", "plain"


def _closed(event: events.ConnectionClosed) -> tuple[str, Tone]:
    kind = "direct" if event.path == "direct" else "relayed"
    return f"{kind} connection to {short(event.peer)} closed: {event.reason}", "dim"


def _punched(event: events.PunchSucceeded) -> tuple[str, Tone]:
    ends = f"{spot(event.local)} ↔ {spot(event.remote)}"
    if event.attempt == 0:
        return f"direct to {short(event.peer)} without a punch, in{ms(event.elapsed_ms)}: {ends}", "good"
    return f"punched through to {short(event.peer)} in{ms(event.elapsed_ms)}, attempt {event.attempt}: {ends}", "good"


def _punch_failed(event: events.PunchFailed) -> tuple[str, Tone]:
    text = f": {event.message.rstrip('.')}" if event.message else ""
    each = ", ".join(f"{name} {code}" for name, code in event.transports.items())
    text += f" ({each})" if len(set(event.transports.values())) > 1 else ""
    return (
        f"punch attempt {event.attempt} to {short(event.peer)} failed: {event.code}{text}{_soon(event.retry_in)}",
        "warn",
    )


def _switched(event: events.SessionSwitched) -> tuple[str, Tone]:
    if event.from_ == "none":
        return f"session with {short(event.peer)} opened, path {event.to}", "dim"
    left, taken = str(event.from_), str(event.to)
    if left == taken == "direct" and event.from_transport != event.to_transport:
        left, taken = f"direct, {event.from_transport}", f"direct, {event.to_transport}"
    text = f"session with {short(event.peer)} goes on: {left} → {taken} ({event.reason})"
    if event.planned:
        return text, "dim"
    return f"{text} after{ms(event.gap_ms)}, {event.replayed} bytes sent again", "plain"


def _refused(event: events.Refused) -> tuple[str, Tone]:
    counts = ", ".join(f"{reason} {times}" for reason, times in event.refused.items())
    most = ", ".join(f"{one['from']} ({one['times']})" for one in event.sources[:3] if one["from"])
    text = f"turned away in {event.seconds:.0f} s: {counts}{f'; most from {most}' if most else ''}"
    callers = [str(one["peer"]) for one in event.sources if one["reason"] == "not_allowed"]
    if callers:
        text += f"; not on a list: {', '.join(callers[:3])}, whom `punchbridge allow PEER_ID` lets in"
    return text, "warn"


def _kept(event: events.SessionKept) -> tuple[str, Tone]:
    why = "the direct path is slower" if event.reason == "SLOWER" else "a direct path has just failed"
    trips = f"round trip{ms(event.rtt_ms)}, direct{ms(event.rtt_direct_ms)}"
    return f"session with {short(event.peer)} stays on the {event.path}: {why} ({trips})", "dim"


def _read(event: events.AccessRead) -> tuple[str, Tone]:
    if event.problems:
        files = "a file of them" if event.problems == 1 else f"{event.problems} files of them"
        return f"read the lists again; {files} cannot be read, and what was in force stays so", "warn"
    return f"read the lists again: {event.allowed} allowed, {event.denied} denied", "plain"


LINES: Final[Lines] = {
    events.NodeStarted: lambda e: (f"peer {e.peer_id}, listening on {', '.join(e.listen) or 'nothing'}", "plain"),
    events.TransportAbsent: lambda e: (f"everything runs over TCP: {e.message}", "dim"),
    events.ReservationAccepted: _reservation,
    events.ReservationLost: _reservation_lost,
    events.KeyShared: _key_shared,
    events.ConnectionOpened: _opened,
    events.ConnectionClosed: _closed,
    events.ConnectionMoved: lambda e: (f"{short(e.peer)} has moved: {spot(e.before)} → {spot(e.remote)}", "dim"),
    events.PunchStarted: lambda e: (
        f"punch attempt {e.attempt} to {short(e.peer)} ({len(e.remote_candidates)} candidates)",
        "plain",
    ),
    events.PunchSucceeded: _punched,
    events.PunchFailed: _punch_failed,
    events.P2pFallback: lambda e: (
        f"staying on the relay with {short(e.peer)}: {e.code}{' ' + e.message if e.message else ''}",
        "warn",
    ),
    events.SessionSwitched: _switched,
    events.SessionKept: _kept,
    events.Refused: _refused,
    events.AutonatResult: lambda e: (f"reachability of {e.addr}: {e.reachability} ({e.status})", "dim"),
    events.LocalRefused: lambda e: (
        f"refused user {e.uid} at {e.bind} ({e.refused} until now): only your user and root may connect; --any-user "
        "lets all in",
        "warn",
    ),
    events.AccessChanged: lambda e: (f"who may call has changed: {e.allowed} allowed, {e.denied} denied", "plain"),
    events.AccessOpen: lambda e: (f"OPEN: anybody who knows an address may call {e.protocol}".rstrip(), "warn"),
    events.AccessRead: _read,
    events.InvitationShown: lambda e: (f"{short(e.peer)} has shown an invitation: {e.outcome}", "plain"),
    events.ErrorEvent: lambda e: (f"error {e.code}: {e.message}", "bad"),
}
