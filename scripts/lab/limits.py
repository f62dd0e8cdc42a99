"""Bounds of the NAT lab, each with its reason. Knows no namespace, no program and no test."""

from __future__ import annotations

from typing import Final

COMMAND_SECONDS: Final = 20.0
"""One `ip` or `nft` call, or one answer of the kernel about its sockets.

They take milliseconds; a loaded two-core machine may need a second.
"""

WIRE_READY_SECONDS: Final = 10.0
"""Start of the wire process: one interpreter start, about 50 ms when the machine is idle."""

LINK_READY_SECONDS: Final = 10.0
"""Until both hosts reach the relay. Carrier events are handled once a second; loss costs more tries."""

SOCKET_BUFFER_BYTES: Final = 16 * 1024 * 1024
"""Receive buffer asked for the wire's frame sockets; the kernel may give less (`rmem_max`)."""

TCP_WINDOW_BYTES: Final = 64 * 1024 * 1024
"""Upper end of tcp_rmem and tcp_wmem in the hosts; with less a 300 ms path is window-limited."""

BIND_SECONDS: Final = 5.0
"""How long a probe waits for a port that a child on its way to another program still holds."""
PROBE_SECONDS: Final = 0.7
"""One connect of `verify`. The lab answers in under 1 ms without delay; more means dropped."""

UDP_IDLE_SECONDS: Final = 1
"""How long the boxes keep an idle UDP flow while `verify` looks whether they forget it."""

UDP_IDLE_WAIT_SECONDS: Final = 1.6
"""Silence after which such a flow has been forgotten: its second is counted from its last packet, in ticks of 10 ms."""

PROBE_REPLY_BYTES: Final = 128
"""An observer's answer: one textual endpoint."""

VERIFY_WORKERS: Final = 4
"""Labs verified side by side. They mostly wait for connects that never answer."""

STOP_SECONDS: Final = 5.0
"""A program has this long between SIGTERM and SIGKILL; it drains in less."""

MAP_TIMEOUT: Final = "1h"
"""Lifetime of a full-cone or hairpin mapping; longer than any run."""

RULE_PORTS: Final = 4096
"""External ports of the sequential and of the hashing NAT, from their base upwards."""

SEQUENCE_BASE: Final = 20_000
HASH_BASE: Final = 30_000
