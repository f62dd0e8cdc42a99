"""The command line of punchbridge: which commands exist, and how their arguments become exit codes.

Commands are registered by import path, so that `--help` loads none of the networking libraries, and so that this
package names `punchbridge.cli.relay` without importing it. Nothing here knows what a command does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from punchbridge.version import __version__

if TYPE_CHECKING:
    from cyclopts import App

PREFIX: Final = "PUNCHBRIDGE_"

COMMANDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("relay", "punchbridge.cli.relay:relay", "Run a circuit relay that others meet at."),
    (
        "listen",
        "punchbridge_node.commands.listen:listen",
        "Run the node, reachable through relays; prints the address to dial.",
    ),
    (
        "dial",
        "punchbridge_node.commands.dial:dial",
        "Run the node and connect it to a peer; goes direct when a punch succeeds.",
    ),
    ("expose", "punchbridge.cli.expose:expose", "Make a gRPC server (any language) reachable through relays."),
    ("forward", "punchbridge.cli.forward:forward", "Open a local port that leads to an exposed server."),
    ("invite", "punchbridge.cli.invite:invite", "Make a ticket that lets a peer in, or list the invitations."),
    ("allow", "punchbridge.cli.access:allow", "Let a peer or a network in."),
    ("deny", "punchbridge.cli.access:deny", "Keep a peer or a network out, whatever else is said."),
    ("revoke", "punchbridge.cli.access:revoke", "Take an invitation back, or what allow and deny have said of a peer."),
    ("ping", "punchbridge.cli.ping:ping", "Measure round trips to a peer; each line names the path."),
    ("identify", "punchbridge.cli.identify:identify", "Ask a peer who it is and what it speaks."),
    ("key", "punchbridge.cli.key:app", "Make or show identity keys."),
)

_EPILOGUE: Final = (
    "Each flag can be set in the environment too (PUNCHBRIDGE_...; a command's --help names them). "
    "Exit codes: 0 done, 1 error, 2 usage, 3 unreachable, 4 relayed, 5 key or authentication, "
    "6 relay refused, 7 not admitted, 130 interrupted."
)
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130


def build() -> App:
    """The whole command tree; commands are imported when they are called or asked for help."""
    from cyclopts import App

    app = App(
        name="punchbridge",
        help="gRPC between two programs behind NATs: they meet at a relay and punch one direct TCP connection.",
        help_format="plaintext",
        help_epilogue=_EPILOGUE,
        version=__version__,
    )
    for name, path, text in COMMANDS:
        app.command(path, name=name, help=text)
    return app


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code. Usage errors are told on stderr and give 2."""
    from cyclopts import CycloptsError

    if arguments and not arguments[0].startswith("-") and arguments[0] not in {name for name, _, _ in COMMANDS}:
        # cyclopts would import every command to word this.
        return _usage(arguments, ValueError(f"Unknown command: {arguments[0]}."))
    app = build()
    if any(name.startswith(PREFIX) for name in os.environ) and not {"--help", "-h", "--version"}.intersection(
        arguments
    ):
        from punchbridge.cli.settings import check_environment
        from punchbridge.errors import ConfigError

        try:
            check_environment(os.environ, app)
        except ConfigError as problem:
            return _usage(arguments, problem)
    try:
        outcome = app(_with_stdin_last(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as problem:
        return _usage(arguments, problem)
    return outcome if isinstance(outcome, int) else 0


def _with_stdin_last(arguments: Sequence[str]) -> list[str]:
    """The same with an argument `-`, which is a TARGET, behind all options: cyclopts takes it for one of them."""
    if "-" not in arguments or "--" in arguments:
        return list(arguments)
    return [*(one for one in arguments if one != "-"), "--", "-"]


def _usage(arguments: Sequence[str], problem: Exception) -> int:
    from punchbridge.cli.report import Reporter
    from punchbridge.errors import ConfigError

    command = next((name for name, _, _ in COMMANDS if name in arguments[:1]), "")
    text = " ".join(str(problem).split())
    hint = f"see: {' '.join(('punchbridge', command)).rstrip()} --help"
    report = Reporter(json="--json" in arguments)
    return int(report.end(report.fail(ConfigError(f"{text} {hint}"))))


def _program(*arguments: str) -> int:
    """Runs a command line as a process of its own: without core dumps, and with all the files that it may open.

    Until the command has opened something (and takes the signal itself) SIGINT ends the process at once: an interrupt
    in the middle of an import would be a traceback, or be swallowed there.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    if not {"--help", "-h", "--version"}.intersection(arguments):
        from punchbridge.cli.process import prepare

        prepare()
    return run(arguments)


def main() -> int:
    """`punchbridge COMMAND ...`"""
    return _program(*sys.argv[1:])


def relay_main() -> int:
    """`punchbridge-relay ...` is `punchbridge relay ...`"""
    return _program("relay", *sys.argv[1:])


def listener_main() -> int:
    """`punchbridge-listener ...` is `punchbridge listen ...`"""
    return _program("listen", *sys.argv[1:])


def dialer_main() -> int:
    """`punchbridge-dialer ...` is `punchbridge dial ...`"""
    return _program("dial", *sys.argv[1:])
