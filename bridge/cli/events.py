"""What the commands themselves have to tell: the results of `ping` and `identify`, and how a program ended.

Plain values, printed by `--json`. They know nothing of who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from punchbridge.events import Event, Path, TransportName


@dataclass(frozen=True, kw_only=True)
class PingResult(Event):
    """One round trip of `punchbridge ping`; `rtt_ms` None: it was lost. `remote`: the peer's end of the path;
    `transport`: as in connection.opened."""

    name = "ping.result"
    peer: str
    count: int
    path: Path
    remote: str
    rtt_ms: float | None
    transport: TransportName = "tcp"


@dataclass(frozen=True, kw_only=True)
class IdentifyResult(Event):
    """What `punchbridge identify` learned. `observed`: our address as the peer sees it, None over a relay."""

    name = "identify.result"
    peer: str
    path: Path
    remote: str
    agent: str
    protocol_version: str
    protocols: tuple[str, ...]
    listen: tuple[str, ...]
    observed: str | None
    transport: TransportName = "tcp"


@dataclass(frozen=True, kw_only=True)
class Summary(Event):
    """The last line: how the program ended."""

    name = "summary"
    exit_code: int
    path: str | None = None
    seconds: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)
