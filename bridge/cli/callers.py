"""The flags that say who may call.

`expose` is closed unless it is told otherwise; `listen` and `relay` are open until a list names somebody. Knows no
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter

from punchbridge.cli.options import setting

ACCESS = Group("Who may call", sort_key=20)


@Parameter(name="*")
@dataclass(frozen=True)
class Callers:
    """Lists of peers, on the command line and in files."""

    allow: Annotated[
        tuple[str, ...] | None,
        setting("allow", "Peer id or network that may call. Repeatable.", shown="none", group=ACCESS),
    ] = None
    allow_file: Annotated[
        tuple[str, ...] | None,
        setting(
            "allow-file",
            "File of them, one a line, with a label behind; changes are followed. Repeatable.",
            shown="none",
            group=ACCESS,
        ),
    ] = None
    deny: Annotated[
        tuple[str, ...] | None,
        setting(
            "deny",
            "Peer id or network that may not, whatever else is said. Repeatable.",
            shown="none",
            group=ACCESS,
        ),
    ] = None
    deny_file: Annotated[
        tuple[str, ...] | None, setting("deny-file", "File of them. Repeatable.", shown="none", group=ACCESS)
    ] = None

    @property
    def flags(self) -> Mapping[str, Any]:
        """The settings of these flags; None for those not given."""
        return {
            "access.allow": self.allow,
            "access.allow_files": self.allow_file,
            "access.deny": self.deny,
            "access.deny_files": self.deny_file,
        }


OpenFlag = Annotated[bool | None, setting("open", "Let anybody who knows the address call.", shown="no", group=ACCESS)]
