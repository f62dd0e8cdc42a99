"""Sessions: one ordered byte stream with two ends that outlives the libp2p streams (carriers) it runs over.

`frames` is the wire form, `writes` packs them, `outgoing` and `incoming` are the two halves of one end's memory,
`machine` is the end itself. No I/O, no clock of its own, no idea of peers or paths.
"""

from punchbridge.sessions.events import Attached, Ended, Refused, Released, SessionEvent, Starved, Switched
from punchbridge.sessions.frames import MAX_FRAME, Attach, SessionRefusal
from punchbridge.sessions.machine import Session
from punchbridge.sessions.outgoing import Outgoing
from punchbridge.sessions.writes import Write

__all__ = [
    "MAX_FRAME",
    "Attach",
    "Attached",
    "Ended",
    "Outgoing",
    "Refused",
    "Released",
    "Session",
    "SessionEvent",
    "SessionRefusal",
    "Starved",
    "Switched",
    "Write",
]
