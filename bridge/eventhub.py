"""Hands events to those who subscribed. Opens no file, starts no task, knows no event by name.

The hub is a named supervisor: what a subscriber raises is reported and reaches neither the emitter nor the other
subscribers, so that a slip in a console line cannot cost a connection.
"""

from __future__ import annotations

from collections.abc import Callable

from punchbridge.events import Event
from punchbridge.tasks.supervise import report

Subscriber = Callable[[Event], None]


class EventHub:
    """Hands each event to every subscriber, in the order of subscription, in the emitter's thread.

    A subscriber must not block; a slow reader puts the event into a bounded queue of its own. An exception of a
    subscriber is logged, the first time with its traceback.
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
        """Calls every subscriber with the event. Raises nothing of theirs."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as problem:  # noqa: BLE001 - the named supervisor
                name = getattr(subscriber, "__qualname__", type(subscriber).__name__)
                report(f"the subscriber {name} to {event.name}", problem)
