"""What a server that starts tells its callers: a ticket on stdout, and a note of how it is reached beside its lists.

The secret of a ticket goes to stdout and nowhere else: not into an event, not into a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from punchbridge.access.contact import contact_path, write_contact

if TYPE_CHECKING:
    from punchbridge.cli.report import Reporter
    from punchbridge.config import Config
    from punchbridge.host.host import Host

__all__ = ["Doorway"]

_EXPIRES: Final = 7 * 24 * 3600.0
"""Seconds that the first ticket is good for; `punchbridge invite` makes others."""

_LABEL: Final = "start"
"""The label of whom the first ticket has let in."""

_KEPT: Final = 16
"""First tickets of the last starts that are good beside this one, if nobody has used them."""


class Doorway:
    """Prints the ticket of one server, once, and keeps the note."""

    def __init__(self, report: Reporter, config: Config) -> None:
        self._report = report
        self._config = config
        self._printed = False

    @property
    def invites(self) -> bool:
        """Whether the ticket lets somebody in: not where anybody may call, and not where lists say who may."""
        lists = self._config.access
        return not (lists.anyone or lists.allow or lists.allow_files)

    async def open(self, host: Host) -> None:
        """The server can be reached now, or at other addresses than before. The first time its ticket is printed, alone
        on a line.

        With --json nothing is printed and nobody is invited, since a secret belongs into no event. Raises ConfigError.
        """
        admission, relays = host.admission, host.relay_client.kept
        contact = admission.contact(relays)
        if admission.file is not None:
            await trio.to_thread.run_sync(write_contact, contact_path(admission.file.path), contact)
        if self._printed or self._report.json:
            return
        self._printed = True
        ticket = contact.ticket(None)
        if self.invites:
            ticket = await admission.invite(relays, expires=_EXPIRES, label=_LABEL, newest=_KEPT)
        self._report.data(ticket.encode())
        self._report.note("on the other side run: punchbridge forward, with the line above as its TARGET", "dim")
