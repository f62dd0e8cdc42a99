"""punchbridge: gRPC between two programs behind NATs, over libp2p streams.

    import punchbridge

    with punchbridge.open(relays=["/ip4/203.0.113.9/tcp/4001/p2p/12D3KooW…"]) as b:
        channel = b.channel("/ip4/203.0.113.9/tcp/4001/p2p/12D3KooW…/p2p-circuit/p2p/12D3KooX…")

Importing this package is cheap: each name is loaded at its first use (PEP 562). What is listed in `__all__` is the
public API; the rooms below (`punchbridge.swarm`, `punchbridge.net`, …) are the house itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "punchbridge":
    raise ImportError(
        "this package is `punchbridge`; import it by that name (the checkout's folder src is its import root)"
    )

if TYPE_CHECKING:
    from punchbridge import errors, events
    from punchbridge.errors import (
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
    from punchbridge.events import Event
    from punchbridge.identity import Identity
    from punchbridge.rpc.api import Bridge
    from punchbridge.rpc.api import open_bridge as open
    from punchbridge.rpc.control import ConnectionInfo, Status
    from punchbridge.rpc.guard import aio_guard, guard
    from punchbridge.rpc.options import channel_options, server_options
    from punchbridge.rpc.peer import ConnectInfo, peer
    from punchbridge.rpc.target import GRPC_PROTOCOL
    from punchbridge.rpc.trio_api import BridgeStream, TrioBridge, open_trio

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
    "Bridge": "punchbridge.rpc.api",
    "open": "punchbridge.rpc.api:open_bridge",
    "ConnectionInfo": "punchbridge.rpc.control",
    "Status": "punchbridge.rpc.control",
    "aio_guard": "punchbridge.rpc.guard",
    "guard": "punchbridge.rpc.guard",
    "channel_options": "punchbridge.rpc.options",
    "server_options": "punchbridge.rpc.options",
    "ConnectInfo": "punchbridge.rpc.peer",
    "peer": "punchbridge.rpc.peer",
    "GRPC_PROTOCOL": "punchbridge.rpc.target",
    "BridgeStream": "punchbridge.rpc.trio_api",
    "TrioBridge": "punchbridge.rpc.trio_api",
    "open_trio": "punchbridge.rpc.trio_api",
    "Event": "punchbridge.events",
    "Identity": "punchbridge.identity",
}
"""Where each name lives; names that are missing here are errors."""


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return import_module(f"punchbridge.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'punchbridge' has no attribute {name!r}")
    module, _, attribute = _HOMES.get(name, "punchbridge.errors").partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
