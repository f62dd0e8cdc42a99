"""Bounds of who may call: lists, the file that holds them, invitations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from punchbridge.config.values import MIB, Bytes, Checked, Count, File, Seconds, Texts

__all__ = ["ANYONE", "AccessLimits", "AccessLists", "Anyone"]


class Anyone(Enum):
    """The type of ANYONE."""

    ANYONE = "anyone"

    def __repr__(self) -> str:
        return "punchbridge.ANYONE"


ANYONE: Final[Literal[Anyone.ANYONE]] = Anyone.ANYONE
"""In the place of a list of peers: whoever knows the address may call."""


@dataclass(frozen=True, kw_only=True)
class AccessLists(Checked):
    """Who may call what is served here. Nobody, unless a list says so; who is denied on one is denied."""

    anyone: bool = False
    """Whoever knows the address may call, unless denied."""

    until_listed: bool = False
    """Whoever knows the address may call for as long as no list has named anybody who may; then only the listed."""

    allow: Texts = ()
    """Peer ids, and networks such as 203.0.113.0/24 where an address is seen."""

    allow_files: Texts = ()
    """Files of them, one a line with a label behind it. Changes are followed."""

    deny: Texts = ()
    """Peer ids and networks that may not, whatever else is said. A network is also asked for the address at which a
    relay of ours says that it sees a caller."""

    deny_files: Texts = ()
    """Files of them."""

    file: File = None
    """The file that `punchbridge allow`, `deny` and `invite` edit. None is the one beside the key file, if there is a
    key file."""


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

    invites: Count = 5
    """Secrets that one peer may show at once."""

    invite_every: Seconds = 10.0
    """After those, one in this time; others are not looked at. Nobody guesses one of 2^128 secrets; this bounds the
    work, and how much of the next bound one peer takes."""

    invites_per_address: Count = 60
    """Secrets that all strangers of one address may show at once, such as the people of an office behind one NAT: an
    IPv4 address or an IPv6 /64, twice that from a /56, four times from a /48, eight times from an IPv4 /24. Over a
    relay it is the address that the relay tells, of a relay of ours; all strangers over another one have one share.
    Peers on a list do not count."""

    invite_per_address_every: Seconds = 1.0
    """After those, one in this time, which costs about a thousandth of a core."""

    invite_keys: Count = 4096
    """Peers, and addresses or nets of each size, with a token bucket, about 200 bytes each."""

    invite_streams: Count = 64
    """Streams of /punchbridge/invite/1.0.0 at once; a peer has one."""

    invite_timeout: Seconds = 5.0
    """One stream of /punchbridge/invite/1.0.0: a question, an answer, and the file written in between."""
