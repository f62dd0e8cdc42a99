"""punchbridge: gRPC between two programs behind NATs, over libp2p streams.

    import bridge

    with bridge.open(relays=["/ip4/203.0.113.9/tcp/4001/p2p/12D3KooW…"]) as b:
        channel = b.channel("/ip4/203.0.113.9/tcp/4001/p2p/12D3KooW…/p2p-circuit/p2p/12D3KooX…")

Importing this package is cheap: each name is loaded at its first use (PEP 562). What is listed in `__all__` is the
public API; the rooms below (`bridge.swarm`, `bridge.net`, …) are the house itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge import errors, events
    from bridge.errors import (
        AddressError,
        AuthenticationFailed,
        BridgeError,
        ConfigError,
        ConnectionLost,
        DialTimeout,
        DirectRequired,
        IdentityError,
        LimitExceeded,
        LocalError,
        NegotiationFailed,
        NotBridged,
        PortInUse,
        ProtocolViolation,
        RelayRefused,
        RemoteError,
        StreamReset,
        SwarmStopped,
        Unreachable,
        WrongPeer,
    )
    from bridge.events import Event
    from bridge.identity import Identity
    from bridge.rpc.api import Bridge
    from bridge.rpc.api import open_bridge as open
    from bridge.rpc.control import ConnectionInfo, Status
    from bridge.rpc.guard import aio_guard, guard
    from bridge.rpc.options import channel_options, server_options
    from bridge.rpc.peer import ConnectInfo, peer
    from bridge.rpc.target import GRPC_PROTOCOL
    from bridge.rpc.trio_api import BridgeStream, TrioBridge, open_trio

__all__ = [
    "GRPC_PROTOCOL",
    "AddressError",
    "AuthenticationFailed",
    "Bridge",
    "BridgeError",
    "BridgeStream",
    "ConfigError",
    "ConnectInfo",
    "ConnectionInfo",
    "ConnectionLost",
    "DialTimeout",
    "DirectRequired",
    "Event",
    "Identity",
    "IdentityError",
    "LimitExceeded",
    "LocalError",
    "NegotiationFailed",
    "NotBridged",
    "PortInUse",
    "ProtocolViolation",
    "RelayRefused",
    "RemoteError",
    "Status",
    "StreamReset",
    "SwarmStopped",
    "TrioBridge",
    "Unreachable",
    "WrongPeer",
    "aio_guard",
    "channel_options",
    "errors",
    "events",
    "guard",
    "open",
    "open_trio",
    "peer",
    "server_options",
]

_HOMES = {
    "Bridge": "bridge.rpc.api",
    "open": "bridge.rpc.api:open_bridge",
    "ConnectionInfo": "bridge.rpc.control",
    "Status": "bridge.rpc.control",
    "aio_guard": "bridge.rpc.guard",
    "guard": "bridge.rpc.guard",
    "channel_options": "bridge.rpc.options",
    "server_options": "bridge.rpc.options",
    "ConnectInfo": "bridge.rpc.peer",
    "peer": "bridge.rpc.peer",
    "GRPC_PROTOCOL": "bridge.rpc.target",
    "BridgeStream": "bridge.rpc.trio_api",
    "TrioBridge": "bridge.rpc.trio_api",
    "open_trio": "bridge.rpc.trio_api",
    "Event": "bridge.events",
    "Identity": "bridge.identity",
}
"""Where each name lives; names that are missing here are errors."""


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return import_module(f"bridge.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'bridge' has no attribute {name!r}")
    module, _, attribute = _HOMES.get(name, "bridge.errors").partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
