"""What can be asked of the swarm actor, as values with a reply slot each. No command knows how it is carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import trio

from punchbridge.addresses import Multiaddr
from punchbridge.identity import PeerId
from punchbridge.transport.base import Reservation

if TYPE_CHECKING:
    from punchbridge.swarm.gater import Audience
    from punchbridge.transport.base import Connection, Stream

__all__ = [
    "Adopt",
    "Close",
    "Command",
    "Connect",
    "Dial",
    "Handle",
    "Listen",
    "OpenStream",
    "Reply",
    "Reserve",
    "Unhandle",
]

T = TypeVar("T")


class Reply(Generic[T]):
    """A slot that is filled once, with a value or an error. `scope` cancels the work when the asker went away."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.left = False
        """The asker was cancelled; nobody will take the value."""
        self._event = trio.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def filled(self) -> bool:
        """True once there is a value or an error."""
        return self._event.is_set()

    def succeed(self, value: T) -> None:
        """Fills in the value; ignored when filled."""
        if not self.filled:
            self._value = value
            self._event.set()

    def fail(self, error: BaseException) -> None:
        """Fills in the error; ignored when filled."""
        if not self.filled:
            self._error = error
            self._event.set()

    async def wait(self) -> T:
        """The value, or raises the error."""
        await self._event.wait()
        return self.take()

    def take(self) -> T:
        """The value of a filled slot, or raises its error."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None is a value of T where T is None

    def abandoned(self) -> T | None:
        """What a cancelled asker did not collect; None when there is nothing to give back."""
        return self._value


@dataclass(frozen=True, kw_only=True)
class Command(Generic[T]):
    """Base: `reply` is filled by the actor, at the latest with SwarmStopped."""

    reply: Reply[T] = field(default_factory=Reply, compare=False)


@dataclass(frozen=True, kw_only=True)
class Listen(Command[tuple[Multiaddr, ...]]):
    """`Swarm.listen`."""

    addrs: tuple[Multiaddr, ...]


@dataclass(frozen=True, kw_only=True)
class Dial(Command["Connection"]):
    """`Swarm.dial`."""

    addr: Multiaddr
    expected: PeerId | None
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class Connect(Command["Connection"]):
    """`Swarm.connect`."""

    peer: PeerId
    addrs: tuple[Multiaddr, ...]
    path: Literal["any", "direct", "relay"]


@dataclass(frozen=True, kw_only=True)
class OpenStream(Command["Stream"]):
    """`Swarm.open_stream`."""

    target: PeerId | Connection
    protocols: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Handle(Command[None]):
    """`Swarm.handle`."""

    protocol: str
    handler: Callable[[Stream], Awaitable[None]]
    max_streams: int
    max_per_peer: int
    relayed: bool
    audience: Audience
    small: bool


@dataclass(frozen=True, kw_only=True)
class Unhandle(Command[None]):
    """`Swarm.unhandle`."""

    protocol: str


@dataclass(frozen=True, kw_only=True)
class Reserve(Command[Reservation]):
    """`Swarm.reserve`."""

    relay: Multiaddr


@dataclass(frozen=True, kw_only=True)
class Close(Command[None]):
    """`Swarm.close`."""

    target: PeerId | Connection
    reason: str


@dataclass(frozen=True, kw_only=True)
class Adopt(Command["Connection"]):
    """`Swarm.adopt`."""

    connection: Connection
