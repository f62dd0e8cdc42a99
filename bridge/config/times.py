"""How long the calls of the library and the programs wait for what may not come."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Seconds

__all__ = ["Times"]


@dataclass(frozen=True, kw_only=True)
class Times(Checked):
    """Waits of the application's calls. The waits of a single protocol stand among the limits of its room."""

    open_path: Seconds = 18.0
    """From a channel's connect to an open stream: dial, circuit, upgrade. Below gRPC's connect time-out of 20 s."""

    direct_wait: Seconds = 10.0
    """A channel that insists on a direct path waits this long for the punch: three attempts and their pauses."""

    start: Seconds = 30.0
    """Start of the network thread: key, sockets, listening."""

    stop: Seconds = 10.0
    """Stop of the network thread. Connections get this long to say goodbye."""
