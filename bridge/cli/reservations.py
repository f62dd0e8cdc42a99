"""Waiting for the first relay to accept, and printing the address to dial each time there is another one.

Shared by `listen` and `expose`. Later losses are the keeper's work and the user's news; only a start where no relay
accepts is a failure of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from punchbridge.addresses import parse, peer_of
from punchbridge.errors import (
    AddressError,
    AuthenticationFailed,
    BridgeError,
    DialTimeout,
    NegotiationFailed,
    RelayRefused,
    StreamReset,
    Unreachable,
    WrongPeer,
)
from punchbridge.events import Event, ReservationAccepted, ReservationLost
from punchbridge.identity import peer_text

if TYPE_CHECKING:
    from punchbridge.cli.report import Reporter

_FINAL = (AuthenticationFailed, AddressError, NegotiationFailed)
"""The relay is another one than the user named, or none: asking again gets the same answer."""

_FINAL_STATUS = "PERMISSION_DENIED"
"""The one refusal by which a relay excludes this peer for good. A full, busy or draining one accepts later."""


def hopeless(problem: BridgeError) -> bool:
    """True when asking the relay again gets the same answer."""
    return isinstance(problem, _FINAL) or (isinstance(problem, RelayRefused) and problem.status == _FINAL_STATUS)


def advised(problem: BridgeError, relay: str) -> BridgeError:
    """The same error, with what the user can do as a note where its own text does not say it."""
    if isinstance(problem, WrongPeer):
        problem.add_note("check the /p2p/ID at the end of --relay")
    elif isinstance(problem, (Unreachable, StreamReset)):
        question = "" if str(problem).endswith("?") else "; is it running, and is its address right?"
        problem.add_note(f"no reservation at relay {relay}{question}")
    return problem


class Source(Protocol):
    """Where events come from: a `Feed`, of asyncio or of trio."""

    async def get(self) -> Event: ...


class Reservations:
    """What each relay said last, and the addresses that are known."""

    def __init__(self, report: Reporter, relays: Sequence[str], *, found: Callable[[str], None] | None = None) -> None:
        """found: called with each circuit address the first time a relay grants it; by default it is printed, with the
        command that dials it."""
        self._report = report
        self._found = found or self._print
        self._waiting = {peer_text(peer) for peer in (peer_of(parse(text)) for text in relays) if peer is not None}
        self._lost: dict[str, BridgeError] = {}
        self._known: set[str] = set()
        self.accepted = False

    def note(self, event: Event) -> None:
        """Keeps what relays say."""
        if isinstance(event, ReservationAccepted):
            self.accepted = True
            self._lost.pop(event.relay, None)
            for addr in event.addrs:
                if addr not in self._known:
                    self._known.add(addr)
                    self._found(addr)
        elif isinstance(event, ReservationLost) and event.error is not None:
            self._lost[event.relay] = event.error

    def _print(self, addr: str) -> None:
        self._report.data(addr)
        self._report.note(f"on the other side run: punchbridge dial {addr}", "dim")

    async def first(self, feed: Source) -> None:
        """Waits until one relay has accepted; the caller bounds the time and then raises `late`.

        Raises the error of a relay as soon as all have given an answer that waiting does not change. A relay that is
        full or drains is asked again for as long as the caller waits.
        """
        self._report.progress("waiting for the relay to accept the reservation")
        try:
            while not self.accepted:
                self.note(await feed.get())
                final = [(relay, one) for relay, one in self._lost.items() if hopeless(one)]
                if len(final) >= len(self._waiting) and not self.accepted:
                    relay, problem = final[0]
                    raise advised(problem, relay)
        finally:
            self._report.progress(None)

    def late(self, seconds: float) -> BridgeError:
        """Why there is no reservation after so many seconds."""
        for relay, problem in self._lost.items():
            return advised(problem, relay)
        return DialTimeout(f"no relay answered within {seconds:g} s; is it running, and is its address right?")
