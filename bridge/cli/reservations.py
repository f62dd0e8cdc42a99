"""Waiting for the first relay to accept, and printing the address to dial each time there is another one.

Shared by `listen` and `expose`. Later losses are the keeper's work and the user's news; only a start where no relay
accepts is a failure of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from punchbridge.addresses import parse, peer_of
from punchbridge.errors import (
    AddressError,
    AuthenticationFailed,
    BridgeError,
    DialTimeout,
    RelayRefused,
    Unreachable,
    WrongPeer,
)
from punchbridge.events import Event, ReservationAccepted, ReservationLost
from punchbridge.identity import peer_text

if TYPE_CHECKING:
    from punchbridge.cli.report import Reporter

_HOPELESS = (RelayRefused, AuthenticationFailed, AddressError)
"""Asking again in the next seconds gets the same answer."""


def failure_of(lost: ReservationLost) -> BridgeError:
    """A lost reservation as the error that a program ends with."""
    text = f"no reservation at relay {lost.relay}: {lost.message or lost.code}"
    if lost.code == WrongPeer.code:
        return WrongPeer(f"{text}; check the /p2p/ID at the end of --relay")
    if lost.code == AuthenticationFailed.code:
        return AuthenticationFailed(text)
    if lost.code == AddressError.code:
        return AddressError(text)
    if lost.code in ("UNREACHABLE", "TIMEOUT", "CONNECTION_LOST", "RESET", "EXPIRED", "STOPPED", "NORMAL"):
        return Unreachable(text if text.endswith("?") else f"{text}; is the relay running, and is its address right?")
    return RelayRefused(text, lost.code)


class Source(Protocol):
    """Where events come from: a `Feed`, of asyncio or of trio."""

    async def get(self) -> Event: ...


class Reservations:
    """What each relay said last, and the addresses already printed."""

    def __init__(self, report: Reporter, relays: Sequence[str], *, hint: str = "punchbridge dial") -> None:
        self._report = report
        self._waiting = {peer_text(peer) for peer in (peer_of(parse(text)) for text in relays) if peer is not None}
        self._hint = hint
        self._lost: dict[str, BridgeError] = {}
        self._printed: set[str] = set()
        self.accepted = False

    def note(self, event: Event) -> None:
        """Prints a circuit address the first time a relay grants it."""
        if isinstance(event, ReservationAccepted):
            self.accepted = True
            self._lost.pop(event.relay, None)
            for addr in event.addrs:
                if addr not in self._printed:
                    self._printed.add(addr)
                    self._report.data(addr)
                    self._report.note(f"on the other side run: {self._hint} {addr}", "dim")
        elif isinstance(event, ReservationLost):
            self._lost[event.relay] = failure_of(event)

    async def first(self, feed: Source) -> None:
        """Waits until one relay has accepted; the caller bounds the time and then raises `late`.

        Raises the failure of a relay as soon as all have given an answer that waiting does not change.
        """
        self._report.progress("waiting for the relay to accept the reservation")
        try:
            while not self.accepted:
                self.note(await feed.get())
                hopeless = [one for one in self._lost.values() if isinstance(one, _HOPELESS)]
                if len(hopeless) >= len(self._waiting) and not self.accepted:
                    raise hopeless[0]
        finally:
            self._report.progress(None)

    def late(self, seconds: float) -> BridgeError:
        """Why there is no reservation after so many seconds."""
        silent = DialTimeout(f"no relay answered within {seconds:g} s; is it running, and is its address right?")
        return next(iter(self._lost.values()), silent)
