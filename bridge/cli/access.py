"""`punchbridge allow|deny|revoke`: edits of the access file, which running programs follow. Opens no socket.

Which file that is, and the flags that name it, are shared with `punchbridge invite`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter

from punchbridge.cli import PREFIX
from punchbridge.cli.options import Output, default_key, flag

if TYPE_CHECKING:
    from punchbridge.access.lists import Entry, Who
    from punchbridge.access.records import Records
    from punchbridge.access.store import AccessFile
    from punchbridge.cli.report import Reporter
    from punchbridge.config.access import AccessLimits

ACCESS: Final = Group("Access", sort_key=30)


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Which program the command is about."""

    key: Annotated[
        Path | None,
        flag(
            "key",
            "Key file of the program; its access file is beside it.",
            env=f"{PREFIX}KEY_FILE",
            group=ACCESS,
            show_default="$XDG_STATE_HOME/punchbridge/key",
        ),
    ] = None
    access_file: Annotated[
        Path | None,
        flag("access-file", "Access file of the program.", group=ACCESS, show_default="that beside the key"),
    ] = None

    def path(self) -> Path:
        """The access file, which need not exist."""
        from punchbridge.access.store import access_path

        return self.access_file or access_path(self.key or default_key())

    def file(self) -> AccessFile:
        """The access file, to read and edit."""
        from punchbridge.access.store import AccessFile
        from punchbridge.config.access import AccessLimits

        return AccessFile(self.path(), AccessLimits())


WHERE: Final = Where()
OUTPUT_FLAGS: Final = Output()

_NAME: Final = re.compile("[0-9A-Fa-f]{4,64}")
"""The name of an invitation, or its beginning."""

WhoArgument = Annotated[str | None, Parameter(help="Peer id (12D3KooW…) or IP network (203.0.113.0/24).")]
LabelFlag = Annotated[str, flag("label", "Name for people, shown in lists.", group=ACCESS, show_default="none")]
ListFlag = Annotated[bool, flag("list", "Print the list and change nothing.", group=ACCESS)]


def edit(where: Where, out: Output, work: Callable[[AccessFile, Reporter], None]) -> int:
    """Runs a command on the access file: failures become its exit code, the summary names the file."""
    from punchbridge.cli.report import Reporter, run

    report = Reporter(json=out.json, quiet=out.quiet)

    def program() -> int:
        file = where.file()
        report.detail["file"] = str(file.path)
        work(file, report)
        return 0

    return run(program, report, verbose=bool(out.verbose))


def allow(
    who: WhoArgument = None,
    /,
    *,
    label: LabelFlag = "",
    list_: ListFlag = False,
    where: Where = WHERE,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Let a peer or a network in, from now on; a denial of it ends. Running programs follow within 2 s."""

    def change(records: Records, whom: Who, limits: AccessLimits) -> Records:
        return records.allowing(whom, label, limits)

    return _listed(where, out, who, list_, "allowed", change, lambda records: records.allow.entries)


def deny(
    who: WhoArgument = None,
    /,
    *,
    label: LabelFlag = "",
    list_: ListFlag = False,
    where: Where = WHERE,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Keep a peer or a network out, whatever else is said. Running programs follow within 2 s and end its sessions."""

    def change(records: Records, whom: Who, limits: AccessLimits) -> Records:
        return records.denying(whom, label, limits)

    return _listed(where, out, who, list_, "denied", change, lambda records: records.denied)


def revoke(
    what: Annotated[str, Parameter(help="Invitation, as `invite --list` names it, or peer id or network.")],
    /,
    *,
    keep: Annotated[
        bool,
        flag("keep", "Allow the peers that the invitation let in to go on.", env=f"{PREFIX}REVOKE_KEEP", group=ACCESS),
    ] = False,
    where: Where = WHERE,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Take an invitation back, and with it the peers that it let in; or what allow or deny have said of a peer."""

    def work(file: AccessFile, report: Reporter) -> None:
        from punchbridge.access.lists import parse_who

        if _NAME.fullmatch(what):

            def take_back(records: Records) -> tuple[str, Records]:
                after = records.revoking(what, time.time(), file.limits, keep=keep)
                return records.invitation(what).name, after

            report.detail["revoked"] = file.edit(take_back)
            report.note(f"invitation {report.detail['revoked']} is revoked")
        else:
            who = parse_who(what)
            file.edit(lambda records: (None, records.forgetting(who)))
            report.detail["forgotten"] = str(who)
            report.note(f"nothing is said of {who} any more")

    return edit(where, out, work)


def _listed(
    where: Where,
    out: Output,
    who: str | None,
    list_: bool,
    word: str,
    change: Callable[[Records, Who, AccessLimits], Records],
    entries: Callable[[Records], tuple[Entry, ...]],
) -> int:
    def work(file: AccessFile, report: Reporter) -> None:
        from punchbridge.access.lists import parse_who
        from punchbridge.errors import ConfigError

        if (who is None) is not list_:
            raise ConfigError("give one peer id or network, or --list")
        if who is None:
            found = entries(file.read())
            report.detail[word] = [{"who": str(one.who), "label": one.label} for one in found]
            report.note(f"{len(found)} {word} by {file.path}")
            for one in found:
                report.data(f"{one.who} {one.label}".rstrip())
            return
        whom = parse_who(who)
        file.edit(lambda records: (None, change(records, whom, file.limits)))
        report.detail[word] = str(whom)
        report.note(f"{word}: {whom}; noted in {file.path}")

    return edit(where, out, work)
