"""The line on the console for each of the node's own events, beside those of `punchbridge.cli.lines`. Texts only."""

from __future__ import annotations

from typing import Final

from punchbridge.cli.lines import Lines, Tone, short
from punchbridge_node.events import FlowStats, HandshakeCompleted, PathChanged

__all__ = ["LINES"]


def _changed(event: PathChanged) -> tuple[str, Tone]:
    text = f"path to {short(event.peer)}: {event.from_} → {event.to} ({event.reason})"
    return text, "good" if event.to == "direct" else "warn"


def _handshake(event: HandshakeCompleted) -> tuple[str, Tone]:
    return f"handshake with {short(event.peer)} {event.user_agent} over {event.path}", "good"


def _flows(event: FlowStats) -> tuple[str, Tone]:
    sent, received = sum(event.sent.values()), sum(event.received.values())
    return f"{short(event.peer)} {event.path}: {sent} messages sent, {received} received", "dim"


LINES: Final[Lines] = {PathChanged: _changed, HandshakeCompleted: _handshake, FlowStats: _flows}
