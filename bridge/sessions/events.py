"""What a session machine tells its shell."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.sessions.frames import SessionRefusal


@dataclass(frozen=True)
class SessionEvent:
    """Base of what a session tells its shell."""


@dataclass(frozen=True)
class Attached(SessionEvent):
    """The carrier carries now. `round_trip`: seconds from ATTACH to its answer (dialling end), else None."""

    generation: int
    round_trip: float | None


@dataclass(frozen=True)
class Refused(SessionEvent):
    """The peer refused the carrier.

    Every refusal ends the session but for STALE_GENERATION, and PATH_NOT_ALLOWED of a session that was established.
    """

    generation: int
    refusal: SessionRefusal
    text: str


@dataclass(frozen=True)
class Switched(SessionEvent):
    """Sending moved. `from_`: the carrier before, None when there was none; `replayed`: bytes to be sent again."""

    from_: int | None
    to: int
    replayed: int
    idle: float
    """Seconds since something was last heard on any carrier before."""


@dataclass(frozen=True)
class Released(SessionEvent):
    """The carrier is done with (drained, silent, or broken a rule); the shell closes it."""

    generation: int
    reason: str


@dataclass(frozen=True)
class Starved(SessionEvent):
    """No carrier is left. The dialling end's shell finds another one before `resume_timeout` is over."""

    reason: str


@dataclass(frozen=True)
class Ended(SessionEvent):
    """The session is over.

    `code`: DONE (both directions ended, all acknowledged), RESET, EXPIRED, or the name of a SessionRefusal.
    """

    code: str
    text: str = ""
