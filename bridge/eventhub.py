"""Hands events to those who subscribed. Opens no file, starts no task, knows no event by name."""

from __future__ import annotations

from collections.abc import Callable

from punchbridge.events import Event

Subscriber = Callable[[Event], None]


class EventHub:
    """Hands each event to every subscriber, in the order of subscription, in the emitter's thread.

    A subscriber must not block and must not raise; a slow reader puts the event into a bounded queue of its own.
    """

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Adds a subscriber; the value returned removes it (once or more often)."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(event)
