"""What an operator or an application can set, as frozen values with the reason of each default.

A file for each room. Numbers that a protocol fixes for everybody on the wire (the size of a frame, the length of a
key) are no configuration; they stand beside their codec. Values are handed down from the composition: nothing below it
imports a default.
"""

from __future__ import annotations

from punchbridge.config.access import ANYONE, AccessLimits, AccessLists
from punchbridge.config.config import Config, Fields
from punchbridge.config.limits import Limits
from punchbridge.config.load import load
from punchbridge.config.local import LocalLimits
from punchbridge.config.memory import MemoryLimits
from punchbridge.config.nat import NatLimits
from punchbridge.config.programs import Programs
from punchbridge.config.punch import Punch, PunchLimits
from punchbridge.config.quic import QuicLimits
from punchbridge.config.relay_client import RelayClientLimits
from punchbridge.config.services import AutonatLimits, IdentifyLimits, PingLimits
from punchbridge.config.sessions import PathLimits, SessionLimits
from punchbridge.config.swarm import SwarmLimits
from punchbridge.config.times import Times
from punchbridge.config.transport import MuxedLimits, TcpLimits, Transports
from punchbridge.config.values import KIB, MIB
from punchbridge.config.yamux import YamuxLimits

__all__ = [
    "ANYONE",
    "KIB",
    "MIB",
    "AccessLimits",
    "AccessLists",
    "AutonatLimits",
    "Config",
    "Fields",
    "IdentifyLimits",
    "Limits",
    "LocalLimits",
    "MemoryLimits",
    "MuxedLimits",
    "NatLimits",
    "PathLimits",
    "PingLimits",
    "Programs",
    "Punch",
    "PunchLimits",
    "QuicLimits",
    "RelayClientLimits",
    "SessionLimits",
    "SwarmLimits",
    "TcpLimits",
    "Times",
    "Transports",
    "YamuxLimits",
    "load",
]
