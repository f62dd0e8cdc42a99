"""Which grpc channel a call takes: one that shares its connection with others, or one that may carry call credentials.

gRPC sends call credentials (tokens, metadata plugins) only on a channel that counts as private. Ours is private: its
bytes go from this process to a unix socket that is answered to this process alone, and from there on in Noise. gRPC's
local credentials say so; they add no byte to the wire, so a server needs nothing to match them. Channels with local
credentials never share a connection, since grpcio makes them anew for each channel. So plain calls stay on an insecure
channel, and the first call with credentials opens a second one beside it. This module knows no peer and no error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

__all__ = ["Channels", "Method", "channels"]

_CREDENTIALS_AT = 3
"""Where a call of grpcio has its credentials among the positional arguments: after request, timeout and metadata."""


class Channels:
    """The grpc channels (sync or aio) behind one channel of ours. `plain` exists from the start."""

    def __init__(self, plain: Any, make_private: Callable[[], Any] | None = None) -> None:
        """make_private: makes the channel for call credentials; None when `plain` carries them."""
        self.plain = plain
        self._make_private = make_private
        self._private: Any = None
        self._lock = threading.Lock()

    def private(self) -> Any:
        """The channel that may carry call credentials, made at its first use. After `close` it is `plain`, which tells
        that it is closed."""
        with self._lock:
            if self._private is None:
                self._private = self.plain if self._make_private is None else self._make_private()
            return self._private

    def close(self) -> list[Any]:
        """All channels that were made, for the caller to close; no other is made from now on."""
        with self._lock:
            made = [self.plain] if self._private in (None, self.plain) else [self.plain, self._private]
            self._make_private = None
            self._private = self.plain
            return made


class Method:
    """A method of a service: `of` gives the multicallable for one call. kind: unary_unary, …; the rest is grpc's."""

    def __init__(self, channels: Channels, kind: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._channels = channels
        self._make: Callable[[Any], Any] = lambda channel: getattr(channel, kind)(*args, **kwargs)
        self._plain = self._make(channels.plain)
        self._private: tuple[Any, Any] = (channels.plain, self._plain)

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The multicallable for a call with these arguments."""
        credentials = args[_CREDENTIALS_AT] if len(args) > _CREDENTIALS_AT else kwargs.get("credentials")
        if credentials is None:
            return self._plain
        channel = self._channels.private()
        if self._private[0] is not channel:
            self._private = (channel, self._make(channel))
        return self._private[1]


def channels(
    insecure: Callable[[], Any],
    secure: Callable[[grpc.ChannelCredentials], Any],
    call_credentials: grpc.CallCredentials | None,
) -> Channels:
    """Channels to a unix socket, from grpc's two ways to make one. call_credentials: go with every call."""
    local = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    if call_credentials is not None:
        return Channels(secure(grpc.composite_channel_credentials(local, call_credentials)))
    return Channels(insecure(), lambda: secure(local))
