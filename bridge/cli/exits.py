"""How a program ends: the exit codes, and which error leads to which.

One table, from which the programs, the docs and the tests are made. It knows error classes only; a program with
error classes of its own passes them in. Nothing here prints or exits.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final

from punchbridge import errors


class Exit(enum.IntEnum):
    """The exit codes of every command."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    RELAYED = 4
    AUTHENTICATION = 5
    RELAY_REFUSED = 6
    NOT_ALLOWED = 7
    INTERRUPTED = 130


MEANING: Final[Mapping[Exit, str]] = {
    Exit.DONE: "done (a drain after SIGTERM too)",
    Exit.ERROR: "an error that none of the other codes names",
    Exit.USAGE: "usage or configuration: a bad flag, address or value, a port in use",
    Exit.UNREACHABLE: "the peer, or every relay, could not be reached",
    Exit.RELAYED: "only a relayed path exists although a direct one was required",
    Exit.AUTHENTICATION: "a key file is unusable, or a peer proved another identity",
    Exit.RELAY_REFUSED: "the relay refused the reservation or the circuit",
    Exit.NOT_ALLOWED: "the other side does not admit this peer, or not by this ticket",
    Exit.INTERRUPTED: "interrupted (SIGINT)",
}

ErrorTable = Mapping[type[BaseException], Exit]

ERRORS: Final[ErrorTable] = {
    errors.ConfigError: Exit.USAGE,
    errors.PortInUse: Exit.USAGE,
    errors.IdentityError: Exit.AUTHENTICATION,
    errors.AuthenticationFailed: Exit.AUTHENTICATION,
    errors.RelayRefused: Exit.RELAY_REFUSED,
    errors.NotAllowed: Exit.NOT_ALLOWED,
    errors.DirectRequired: Exit.RELAYED,
    errors.Unreachable: Exit.UNREACHABLE,
    errors.ConnectionLost: Exit.UNREACHABLE,
    errors.BridgeError: Exit.ERROR,
    KeyboardInterrupt: Exit.INTERRUPTED,
}


def exit_code(problem: BaseException, more: ErrorTable | None = None) -> Exit:
    """The code of the nearest class in the table; ERROR for one that is in no table."""
    table = {**ERRORS, **(more or {})}
    for kind in type(problem).__mro__:
        if kind in table:
            return table[kind]
    return Exit.ERROR


def leaves(problem: BaseException) -> Iterator[BaseException]:
    """The problems inside nested exception groups, in order; a plain problem is its own only leaf."""
    if isinstance(problem, BaseExceptionGroup):
        for inner in problem.exceptions:
            yield from leaves(inner)
    else:
        yield problem
