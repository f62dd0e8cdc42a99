"""`punchbridge invite`: a ticket for one server, and the list of the invitations given away. Opens no socket.

How the server is reached was noted by `expose` beside the access file, or is told by --relay. The ticket goes to stdout
alone; with --json it is in the summary, the one result of the command.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

from punchbridge.cli import PREFIX
from punchbridge.cli.access import ACCESS, WHERE, LabelFlag, ListFlag, Where, edit
from punchbridge.cli.options import NETWORK, Output, checked_relays, default_key, flag

if TYPE_CHECKING:
    from punchbridge.access.contact import Contact
    from punchbridge.access.invitations import Invitation
    from punchbridge.access.store import AccessFile
    from punchbridge.cli.report import Reporter

OUTPUT_FLAGS: Final = Output()

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST: Final = 10 * 366 * 86400
"""Seconds. An invitation for longer is one that never expires."""


def duration(text: str) -> int | None:
    """Seconds of a text such as 90s, 30m, 12h, 7d or 2w; None for `never`. Raises ConfigError."""
    from punchbridge.errors import ConfigError

    if text.strip().lower() == "never":
        return None
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text.strip().lower())
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _MOST:
        raise ConfigError(f"--expires {text!r} is no time; write 12h, 7d or 2w (up to ten years), or never")
    return seconds


def invite(
    *,
    expires: Annotated[
        str,
        flag(
            "expires",
            "How long it may be redeemed: 12h, 7d, 2w or never.",
            env=f"{PREFIX}INVITE_EXPIRES",
            group=ACCESS,
        ),
    ] = "7d",
    uses: Annotated[
        int,
        flag(
            "uses",
            "Peers that it lets in; a peer that comes again is no use.",
            env=f"{PREFIX}INVITE_USES",
            group=ACCESS,
        ),
    ] = 1,
    label: LabelFlag = "",
    relay: Annotated[
        tuple[str, ...],
        flag(
            "relay",
            "Relay that the server is reached through, where expose has not noted it. Repeatable.",
            group=NETWORK,
        ),
    ] = (),
    list_: ListFlag = False,
    where: Where = WHERE,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Make a ticket that lets a peer in, or list the invitations. Whoever has the ticket can use it.

    The ticket takes the place of the address in `forward`, `dial` and `ping`. The server keeps no copy of it.
    """

    def work(file: AccessFile, report: Reporter) -> None:
        if list_:
            _list(file, report)
            return
        lasts, now = duration(expires), time.time()
        from punchbridge.access.secret import SECRET_SIZE, Secret

        secret = Secret(secrets.token_bytes(SECRET_SIZE))
        text = _contact(where, file, relay).ticket(secret).encode()
        until = None if lasts is None else now + lasts
        made = file.invite(secret, now=now, expires=until, uses=uses, label=label)
        report.detail.update(invitation=made.name, ticket=text, uses=uses, expires=made.expires)
        peers = "one peer" if uses == 1 else f"{uses} peers"
        report.note(f"invitation {made.name} lets {peers} in, {_until(made)}; whoever has this ticket can use it:")
        report.data(text)

    return edit(where, out, work)


def _contact(where: Where, file: AccessFile, relays: tuple[str, ...]) -> Contact:
    """How the server is reached. Raises ConfigError when nobody has noted it and no relay is given."""
    from punchbridge.access.contact import Contact, contact_path, read_contact
    from punchbridge.addresses import parse
    from punchbridge.errors import ConfigError, IdentityError
    from punchbridge.identity import load

    given = tuple(parse(one) for one in checked_relays(relays))
    noted = read_contact(contact_path(file.path))
    if noted is not None and where.access_file is None:
        try:
            noted = noted if load(where.key or default_key()).peer_id == noted.peer else None
        except FileNotFoundError:
            noted = None
    if noted is not None:
        return Contact(noted.peer, given, noted.addrs) if given else noted
    if not given:
        raise ConfigError("nothing is known of how the server is reached; start punchbridge expose, or give --relay")
    key = where.key or default_key()
    try:
        return Contact(load(key).peer_id, given)
    except FileNotFoundError:
        raise IdentityError(f"there is no key file {key}; give --key, or start punchbridge expose once") from None


def _list(file: AccessFile, report: Reporter) -> None:
    now, found = time.time(), file.read().invitations
    report.detail["invitations"] = [
        {
            "invitation": one.name,
            "state": one.state(now).value,
            "label": one.label,
            "uses": one.uses,
            "made": one.made,
            "expires": one.expires,
            "redeemed": [{"peer": str(use.peer), "at": use.at} for use in one.redeemed],
        }
        for one in found
    ]
    report.note(f"{len(found)} invitations in {file.path}")
    for one in found:
        state = {"GRANTED": "open", "USED_UP": "used up"}.get(one.state(now).value, one.state(now).value.lower())
        report.data(f"{one.name} {state}, {len(one.redeemed)} of {one.uses} used, {_until(one)} {one.label}".rstrip())
        for use in one.redeemed:
            report.data(f"  {use.peer} since {_moment(use.at)}")


def _until(one: Invitation) -> str:
    return "for ever" if one.expires is None else f"until {_moment(one.expires)}"


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
