"""A host whose streams are sessions: `punchbridge.host.host` with a session service beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

from punchbridge.eventhub import EventHub
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.session.service import SessionService
from punchbridge.tasks.nurseries import flat_nursery

__all__ = ["SessionHost", "open_session_host"]


@dataclass(frozen=True, kw_only=True)
class SessionHost(Host):
    """A running host with its sessions."""

    sessions: SessionService


@asynccontextmanager
async def open_session_host(config: HostConfig, events: EventHub) -> AsyncIterator[SessionHost]:
    """As `open_host`. At the end the sessions are reset before the swarm says goodbye."""
    async with open_host(config, events) as host, flat_nursery() as nursery:
        sessions = SessionService(host)
        await nursery.start(sessions.run)
        yield SessionHost(**{item.name: getattr(host, item.name) for item in fields(host)}, sessions=sessions)
        nursery.cancel_scope.cancel()
