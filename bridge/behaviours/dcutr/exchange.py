"""What the two sides of a DCUtR exchange share: their parts, the step from the peer's CONNECT to an opening, and the
codes of the verdict table for what a stream over the relay raises."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from punchbridge.behaviours.dcutr.attempts import Attempt, started
from punchbridge.behaviours.dcutr.candidates import Candidates
from punchbridge.behaviours.dcutr.direct import DirectOpener, Opening
from punchbridge.behaviours.dcutr.explain import gather
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.behaviours.nat.other import OtherTransport
from punchbridge.config import Punch, PunchLimits
from punchbridge.errors import (
    BridgeError,
    ConnectionLost,
    LimitExceeded,
    NegotiationFailed,
    ProtocolViolation,
    StreamReset,
)
from punchbridge.reach.candidates import Scope
from punchbridge.swarm.swarm import Swarm
from punchbridge.transport.base import Connection
from punchbridge.verdict import Code
from punchbridge.wire.dcutr import role_of

__all__ = ["Failed", "Parts", "judge_candidates", "prepare", "sorted_errors"]


@dataclass(frozen=True)
class Parts:
    """What an exchange works with."""

    swarm: Swarm
    punch: Punch
    limits: PunchLimits
    candidates: Candidates
    direct: DirectOpener
    observer: SecondObserver
    other: OtherTransport
    rng: random.Random


class Failed(Exception):
    """The attempt ended with this code before or beside the simultaneous open. Stays inside this package."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code.value)
        self.code = code
        self.detail = detail


def judge_candidates(parts: Parts, attempt: Attempt, raw: tuple[bytes, ...], circuit: Connection, scope: Scope) -> None:
    """Puts what may be dialled of the peer's CONNECT into the attempt. Raises Failed when that is nothing."""
    remote = parts.candidates.filter(raw, circuit, scope)
    attempt.remote = remote.accepted or parts.candidates.last_resort(raw, circuit, scope)
    if not attempt.remote:
        refused = ", ".join(f"{addr} ({why.value})" for addr, why in remote.refused[:4])
        raise Failed(Code.NO_REMOTE_CANDIDATES, f"refused {refused}" if refused else "the list is empty")


def prepare(parts: Parts, attempt: Attempt, circuit: Connection, exchange: int) -> Opening:
    """The opening for an attempt whose candidates are judged; tells that the attempt starts.

    `exchange`: its number as `role_of` counts.
    """
    gather(attempt, parts.swarm.observed)
    agent = circuit.identify.agent if circuit.identify is not None else None
    opening = parts.direct.prepare(attempt, role_of(attempt.side, exchange, agent), circuit)
    started(parts.swarm, attempt)
    return opening


@contextmanager
def sorted_errors(relayed: Connection) -> Iterator[None]:
    """Turns what a stream over the relay raises into Failed."""
    try:
        yield
    except ProtocolViolation as problem:
        raise Failed(Code.PROTOCOL, str(problem)) from None
    except NegotiationFailed as problem:
        raise Failed(Code.PEER_UNSUPPORTED, str(problem)) from None
    except LimitExceeded as problem:
        raise Failed(Code.UNKNOWN, str(problem)) from None
    except trio.TooSlowError:
        raise Failed(Code.RELAY_LOST if relayed.closed.is_set() else Code.PEER_SILENT) from None
    except (StreamReset, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
        lost = isinstance(problem, ConnectionLost) or relayed.closed.is_set()
        raise Failed(Code.RELAY_LOST if lost else Code.PEER_REFUSED) from None
    except BridgeError as problem:
        raise Failed(Code.UNKNOWN, str(problem)) from None
