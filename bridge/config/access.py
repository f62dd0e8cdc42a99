"""Bounds of who may call: lists, the file that holds them, invitations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from punchbridge.config.values import MIB, Bytes, Checked, Count, Seconds

__all__ = ["ANYONE", "AccessLimits", "Anyone"]


class Anyone(Enum):
    """The type of ANYONE."""

    ANYONE = "anyone"

    def __repr__(self) -> str:
        return "punchbridge.ANYONE"


ANYONE: Final[Literal[Anyone.ANYONE]] = Anyone.ANYONE
"""In the place of a list of peers: whoever knows the address may call."""


@dataclass(frozen=True, kw_only=True)
class AccessLimits(Checked):
    """What is read of lists and of the access file, and how long proving an invitation may take."""

    file: Bytes = 8 * MIB
    """One list, or the access file. All that the other bounds let in, with labels, is less."""

    entries: Count = 10_000
    """Peers and networks of one list; ten thousand take 0.1 s to read."""

    invitations: Count = 1000
    """Invitations that the access file keeps. Each costs one digest and one comparison for a secret that is shown."""

    uses: Count = 1000
    """Peers that one invitation may be for. Those of all invitations together are at most `entries`."""

    follow: Seconds = 1.0
    """Between two looks at the files of a running program, so that a change is followed within 2 s."""

    lock: Seconds = 10.0
    """For the other programs that are editing the access file; each needs a few milliseconds."""

    invite_timeout: Seconds = 5.0
    """One stream of /punchbridge/invite/1.0.0: a question, an answer, and the file written in between."""
