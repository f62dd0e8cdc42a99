"""punchbridge: gRPC between two programs behind NATs, over libp2p streams.

    import punchbridge

    with punchbridge.open(relays=["/ip4/203.0.113.9/tcp/4001/p2p/12D3KooW…"]) as b:
        channel = b.channel("/ip4/203.0.113.9/tcp/4001/p2p/12D3KooW…/p2p-circuit/p2p/12D3KooX…")

Importing this package is cheap: each name is loaded at its first use (PEP 562). What is listed in `__all__` is the
public API; the rooms below (`punchbridge.swarm`, `punchbridge.host`, …) are the house itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "punchbridge":
    raise ImportError(
        "this package is `punchbridge`; import it by that name (the checkout's folder src is its import root)"
    )

if TYPE_CHECKING:
    from punchbridge import config, errors, events
    from punchbridge.api.configuration import load_config
    from punchbridge.api.open import Bridge
    from punchbridge.api.open import open_bridge as open
    from punchbridge.api.snapshots import ConnectionInfo, Status
    from punchbridge.api.trio import BridgeStream, TrioBridge, open_trio
    from punchbridge.config import ANYONE, AccessLists, Config, Limits, Punch, Times, Transports
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
        NotAllowed,
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
    from punchbridge.local.peer import ConnectInfo, peer
    from punchbridge.local.target import GRPC_PROTOCOL
    from punchbridge.rpc.authorize import authorize
    from punchbridge.rpc.guard import aio_guard, guard
    from punchbridge.rpc.options import channel_options, server_options
    from punchbridge.version import __version__

__all__ = [
    "ANYONE",
    "GRPC_PROTOCOL",
    "AccessLists",
    "AddressError",
    "AuthenticationFailed",
    "Bridge",
    "BridgeError",
    "BridgeStream",
    "Config",
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
    "Limits",
    "LocalError",
    "NegotiationFailed",
    "NotAllowed",
    "NotBridged",
    "PortInUse",
    "ProtocolViolation",
    "Punch",
    "RelayRefused",
    "RemoteError",
    "Status",
    "StreamReset",
    "SwarmStopped",
    "Times",
    "Transports",
    "TrioBridge",
    "Unreachable",
    "WrongPeer",
    "__version__",
    "aio_guard",
    "authorize",
    "channel_options",
    "config",
    "errors",
    "events",
    "guard",
    "load_config",
    "open",
    "open_trio",
    "peer",
    "server_options",
]

_HOMES = {
    "ANYONE": "punchbridge.config",
    "AccessLists": "punchbridge.config",
    "Config": "punchbridge.config",
    "Limits": "punchbridge.config",
    "Punch": "punchbridge.config",
    "Times": "punchbridge.config",
    "Transports": "punchbridge.config",
    "load_config": "punchbridge.api.configuration",
    "Bridge": "punchbridge.api.open",
    "open": "punchbridge.api.open:open_bridge",
    "ConnectionInfo": "punchbridge.api.snapshots",
    "Status": "punchbridge.api.snapshots",
    "authorize": "punchbridge.rpc.authorize",
    "aio_guard": "punchbridge.rpc.guard",
    "guard": "punchbridge.rpc.guard",
    "channel_options": "punchbridge.rpc.options",
    "server_options": "punchbridge.rpc.options",
    "ConnectInfo": "punchbridge.local.peer",
    "peer": "punchbridge.local.peer",
    "GRPC_PROTOCOL": "punchbridge.local.target",
    "BridgeStream": "punchbridge.api.trio",
    "TrioBridge": "punchbridge.api.trio",
    "open_trio": "punchbridge.api.trio",
    "Event": "punchbridge.events",
    "Identity": "punchbridge.identity",
    "__version__": "punchbridge.version",
}
"""Where each name lives; names that are missing here are errors."""


def __getattr__(name: str) -> Any:
    if name in ("config", "errors", "events"):
        return import_module(f"punchbridge.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'punchbridge' has no attribute {name!r}")
    module, _, attribute = _HOMES.get(name, "punchbridge.errors").partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
