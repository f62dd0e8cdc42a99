"""gRPC arguments for channels and servers of the bridge, each with its reason (all public, any can be overridden).

Values only; nothing here opens anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

__all__ = ["channel_options", "server_options"]

Options = Sequence[tuple[str, Any]]

_MESSAGE: Final = 1 << 30
"""The largest message: Kaspa's own bound. gRPC's default of 4 MiB is below one full inventory of it."""


def channel_options(authority: str, *, private: bool = False, override: Options = ()) -> list[tuple[str, Any]]:
    """Arguments of a channel to the peer `authority`; entries of `override` replace ours of the same name.

    private: the channel shares no connection (so no stream) with others to the same target.
    """
    ours: dict[str, Any] = {
        "grpc.default_authority": authority,
        "grpc.enable_http_proxy": 0,
        # A refused carrier is tried again soon; the connect time-out leaves room for a dial over a relay.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 20_000,
        "grpc.max_reconnect_backoff_ms": 2_000,
        "grpc.max_receive_message_length": _MESSAGE,
        "grpc.max_send_message_length": _MESSAGE,
        # Larger reads ahead of the application; BDP probing stays on, without it the rate falls to a tenth.
        "grpc.http2.lookahead_bytes": 4 * 1024 * 1024,
        # Keepalive stays off (the connection below pings, and a default server answers gRPC's with GOAWAY); an
        # application that turns it on gets a time-out that works: keepalive_timeout_ms alone never fires.
        "grpc.http2.ping_timeout_ms": 10_000,
    }
    if private:
        ours["grpc.use_local_subchannel_pool"] = 1
    ours.update(override)
    return list(ours.items())


def server_options(override: Options = ()) -> list[tuple[str, Any]]:
    """Arguments worth giving to `grpc.server(options=…)`: large messages pass, clients may ping each 10 s.

    A server made without them works too; it then refuses messages above gRPC's default of 4 MiB.
    """
    ours: dict[str, Any] = {
        "grpc.max_receive_message_length": _MESSAGE,
        "grpc.max_send_message_length": _MESSAGE,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        "grpc.http2.lookahead_bytes": 4 * 1024 * 1024,
    }
    ours.update(override)
    return list(ours.items())
