"""What the events of connections say, made in one place. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from punchbridge.addresses import Multiaddr
from punchbridge.events import ConnectionClosed, ConnectionMoved, ConnectionOpened, Path, Refused, Role, TransportName
from punchbridge.identity import PeerId, peer_text
from punchbridge.tasks.refusals import RefusedSource

__all__ = ["closed", "moved", "opened", "refused"]


class Connected(Protocol):
    """The part of a connection that its events tell of."""

    @property
    def id(self) -> int: ...

    @property
    def peer(self) -> PeerId: ...

    @property
    def path(self) -> Path: ...

    @property
    def local(self) -> Multiaddr: ...

    @property
    def remote(self) -> Multiaddr: ...

    @property
    def role(self) -> Role: ...

    @property
    def inbound(self) -> bool: ...

    @property
    def relay(self) -> PeerId | None: ...

    @property
    def punched(self) -> bool: ...

    @property
    def transport(self) -> TransportName: ...

    @property
    def close_reason(self) -> str: ...

    @property
    def bytes_sent(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...


def opened(connection: Connected) -> ConnectionOpened:
    return ConnectionOpened(
        connection=connection.id,
        peer=peer_text(connection.peer),
        path=connection.path,
        local=str(connection.local),
        remote=str(connection.remote),
        role=connection.role,
        inbound=connection.inbound,
        relay=peer_text(connection.relay) if connection.relay is not None else None,
        punched=connection.punched,
        transport=connection.transport,
    )


def closed(connection: Connected) -> ConnectionClosed:
    return ConnectionClosed(
        connection=connection.id,
        peer=peer_text(connection.peer),
        path=connection.path,
        local=str(connection.local),
        remote=str(connection.remote),
        role=connection.role,
        reason=connection.close_reason,
        bytes_sent=connection.bytes_sent,
        bytes_received=connection.bytes_received,
        transport=connection.transport,
    )


def moved(connection: Connected, before: Multiaddr) -> ConnectionMoved:
    return ConnectionMoved(
        connection=connection.id,
        peer=peer_text(connection.peer),
        before=str(before),
        remote=str(connection.remote),
        transport=connection.transport,
    )


def refused(seconds: float, counts: Mapping[str, int], sources: Sequence[RefusedSource]) -> Refused:
    return Refused(seconds=seconds, refused=counts, sources=tuple(source.as_dict() for source in sources))
