"""`Config`: everything that a bridge is told at its start, as one value.

Nothing is read, resolved or opened here; addresses stay as they were given until the bridge opens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from punchbridge.config.access import ANYONE, AccessLists, Anyone
from punchbridge.config.limits import Limits
from punchbridge.config.programs import Programs
from punchbridge.config.punch import Punch
from punchbridge.config.times import Times
from punchbridge.config.transport import Transports
from punchbridge.config.unknown import unknown
from punchbridge.config.values import Checked
from punchbridge.errors import ConfigError
from punchbridge.version import AGENT

if TYPE_CHECKING:
    from punchbridge.addresses import Multiaddr
    from punchbridge.identity import Identity

    Addresses = Sequence[str | Multiaddr]
    Key = str | Path | Identity | None

__all__ = ["LISTEN", "Config", "Fields"]

LISTEN: Final = ("/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1")
"""Where a bridge listens unless it is told: with TCP, and with QUIC where that is spoken."""


@dataclass(frozen=True, kw_only=True)
class Config(Checked):
    """What a bridge is made of. Raises ConfigError for a value that makes no sense."""

    key: Key = None
    """The identity: the path of a key file, which has to be there (see `new_key`), or an Identity. None takes one that
    is kept for the clients of this user, the first that no other program uses, so that who comes back is the same
    peer."""

    new_key: bool = False
    """Make the key file that `key` names when it is missing. Else a missing one is an error: a typing error must not
    make another peer in silence."""

    ephemeral: bool = False
    """Without a key: a fresh identity for this run alone."""

    listen: Addresses = LISTEN
    """Multiaddrs to listen on, which are also the source of every dial. The default is every IPv4 interface, on a port
    that the system picks, with TCP and QUIC at the same number. What is named is all: with a TCP address alone nothing
    is accepted over QUIC. None at all is possible."""

    announce: Addresses = ()
    """Multiaddrs that others are told beside those found: a forwarded port, a name. They must lead here."""

    relays: Addresses = ()
    """Multiaddrs of relays to hold a reservation with, each ending in /p2p/ID."""

    transports: Transports = Transports()
    """Which transports are spoken."""

    punch: Punch = Punch()
    """Hole punching."""

    access: AccessLists = AccessLists()
    """Who may call what is served here."""

    sessions: bool = True
    """False keeps to plain streams, each bound to the connection that it was opened on."""

    allow_private: bool = False
    """Announce and dial private and loopback addresses too: for one LAN, and for tests."""

    agent: str = AGENT
    """The name and version that identify tells others."""

    limits: Limits = Limits()
    """The bounds of every room."""

    times: Times = Times()
    """How long calls wait."""

    programs: Programs = Programs()
    """What only the programs of the command line need."""

    def changed(self, given: Mapping[str, Any]) -> Config:
        """This value with other fields. `punch` may be a bool, which is its `enabled` alone; `allow` and `deny` are
        those of `access`, and `allow` may be ANYONE.

        Raises ConfigError for an unknown field and names the nearest one, and as the value itself does.
        """
        access = self.access
        if "allow" in given:
            allow = given["allow"]
            access = replace(access, anyone=True) if allow is ANYONE else replace(access, allow=_texts("allow", allow))
        if "deny" in given:
            access = replace(access, deny=_texts("deny", given["deny"]))
        if access is not self.access:
            given = {"access": access, **{name: one for name, one in given.items() if name not in ("allow", "deny")}}
        for name in given:
            if name not in {item.name for item in fields(self)}:
                raise unknown(name, (item.name for item in fields(self)))
        punch = given.get("punch")
        if isinstance(punch, bool):
            given = {**given, "punch": replace(self.punch, enabled=punch)}
        return replace(self, **given)


def _texts(name: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{name} takes several peer ids or networks: write {name}=[{str(given)!r}]")
    return tuple(str(one) for one in given)


class Fields(TypedDict, total=False):
    """The fields of `Config` as keyword arguments."""

    key: Key
    new_key: bool
    ephemeral: bool
    listen: Addresses
    announce: Addresses
    relays: Addresses
    transports: Transports
    punch: Punch | bool
    access: AccessLists
    allow: Sequence[str] | Anyone
    deny: Sequence[str]
    sessions: bool
    allow_private: bool
    agent: str
    limits: Limits
    times: Times
    programs: Programs
