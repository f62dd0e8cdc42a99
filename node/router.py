"""Where an incoming message goes: routes by payload type or by request id, their capacities and overflow rules.

Pure: a table and bounded queues, no task, socket or clock. Who reads a route is woken through `Route.on_message`.
The rules are rusty-kaspa's router: a response id other than 0 routes by id; two inventory types are dropped when
their route is full, anything else that is full, unknown or empty ends the connection; a Reject is never routed.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable, Iterable

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed, wire

DROPPED_WHEN_FULL = frozenset({wire.INV_TRANSACTIONS, wire.INV_RELAY_BLOCK})

# Process-wide, from 1: 0 means "no id" on the wire. A u32 there, so it wraps.
_route_ids = itertools.count(1)


def _next_route_id() -> int:
    return (next(_route_ids) - 1) % 0xFFFF_FFFF + 1


class Outcome(enum.Enum):
    """What became of a message. The last four end the connection."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    FULL = "full"
    NO_ROUTE = "no route"
    EMPTY = "empty"
    REJECTED = "rejected"


class Route:
    """A bounded queue of messages with an id. `id` is what a request made here carries as its request_id."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a route's capacity must be at least 1")
        self.id = _next_route_id()
        self.capacity = capacity
        self.queue: deque[pb.KaspadMessage] = deque()
        self.waiting = 0  # bytes in the queue, as they came over the wire
        self._sizes: deque[int] = deque()
        self.on_message: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether another message would overflow it."""
        return len(self.queue) >= self.capacity

    def put(self, msg: pb.KaspadMessage, size: int) -> None:
        """Append a message of `size` bytes and wake the reader."""
        self.queue.append(msg)
        self._sizes.append(size)
        self.waiting += size
        if self.on_message is not None:
            self.on_message()

    def take(self) -> pb.KaspadMessage:
        """The oldest message; there must be one."""
        self.waiting -= self._sizes.popleft()
        return self.queue.popleft()


class RouteTable:
    """The routes of one connection. most: bytes that wait in all of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_type: dict[wire.PayloadType, Route] = {}
        self._by_id: dict[int, Route] = {}

    def subscribe(self, types: Iterable[wire.PayloadType], capacity: int = fixed.ROUTE_CAPACITY) -> Route:
        """A route for these payload types (none: by id only).

        Raises ValueError for an unknown type, for Reject, and for a type that has a route: each is our own mistake.
        """
        wanted = tuple(types)
        for item in wanted:
            if item not in wire.PAYLOAD_TYPES or item == wire.REJECT:
                raise ValueError(f"no route can be made for {item!r}")
            if item in self._by_type:
                raise ValueError(f"{item!r} has a route")
        if len(set(wanted)) != len(wanted):
            raise ValueError("a type is named twice")
        route = Route(capacity)
        self._by_id[route.id] = route
        for item in wanted:
            self._by_type[item] = route
        return route

    def unsubscribe(self, route: Route) -> None:
        """Forget a route: what would go there has no route from now on. What it holds stays readable."""
        self._by_id.pop(route.id, None)
        for item in [name for name, target in self._by_type.items() if target is route]:
            del self._by_type[item]

    def route(self, msg: pb.KaspadMessage, size: int = 0) -> Outcome:
        """Put one incoming message of `size` bytes where it belongs. In all routes together at most
        `most` bytes wait, or one message."""
        payload = wire.payload_type(msg)
        if payload is None:
            return Outcome.EMPTY
        if payload == wire.REJECT:
            return Outcome.REJECTED
        route = self._by_id.get(msg.responseId) if msg.responseId else self._by_type.get(payload)
        if route is None:
            return Outcome.NO_ROUTE
        waiting = sum(one.waiting for one in self._by_id.values())
        if route.full or (waiting and waiting + size > self._most):
            return Outcome.DROPPED if payload in DROPPED_WHEN_FULL else Outcome.FULL
        route.put(msg, size)
        return Outcome.DELIVERED
