"""The bounds of all rooms in one value, a field for each room."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.access import AccessLimits
from punchbridge.config.local import LocalLimits
from punchbridge.config.memory import MemoryLimits
from punchbridge.config.nat import NatLimits
from punchbridge.config.punch import PunchLimits
from punchbridge.config.quic import QuicLimits
from punchbridge.config.relay_client import RelayClientLimits
from punchbridge.config.services import AutonatLimits, IdentifyLimits, PingLimits
from punchbridge.config.sessions import PathLimits, SessionLimits
from punchbridge.config.swarm import SwarmLimits
from punchbridge.config.transport import MuxedLimits, TcpLimits
from punchbridge.config.values import Checked
from punchbridge.config.yamux import YamuxLimits

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """What each room accepts, keeps and waits for. Every default has its reason beside it."""

    swarm: SwarmLimits = SwarmLimits()
    """Connections, dials and commands."""

    tcp: TcpLimits = TcpLimits()
    """Sockets."""

    muxed: MuxedLimits = MuxedLimits()
    """Secured and muxed connections."""

    yamux: YamuxLimits = YamuxLimits()
    """The streams of each of these."""

    quic: QuicLimits = QuicLimits()
    """Connections that bring security and streams of their own."""

    memory: MemoryLimits = MemoryLimits()
    """What all of these hold together."""

    identify: IdentifyLimits = IdentifyLimits()
    """What peers tell each other."""

    ping: PingLimits = PingLimits()
    """Round trips at the application level."""

    access: AccessLimits = AccessLimits()
    """Who may call."""

    autonat: AutonatLimits = AutonatLimits()
    """Whether our addresses can be reached."""

    nat: NatLimits = NatLimits()
    """What is known of the NAT in front of us."""

    relay_client: RelayClientLimits = RelayClientLimits()
    """Reservations and circuits."""

    punch: PunchLimits = PunchLimits()
    """Hole punching."""

    sessions: SessionLimits = SessionLimits()
    """Streams that outlive the connections below them."""

    paths: PathLimits = PathLimits()
    """The connections that sessions run on."""

    local: LocalLimits = LocalLimits()
    """Sockets between programs of this machine and the streams of peers."""
