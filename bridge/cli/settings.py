"""A configuration from a file, the environment and flags, in this order: what comes later wins.

The flags of the commands and the tables of a file fill the same value. It knows no command.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from punchbridge.config.load import PREFIX, apply, from_environment, from_pairs, parse, settings, tables
from punchbridge.config.unknown import unknown
from punchbridge.config.values import Checked
from punchbridge.errors import ConfigError

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["FLAGS", "check_environment", "read"]

V = TypeVar("V", bound=Checked)

FLAGS: Final[Mapping[str, str]] = {
    "access.allow": "--allow",
    "access.allow_files": "--allow-file",
    "access.anyone": "--open",
    "access.deny": "--deny",
    "access.deny_files": "--deny-file",
    "allow_connect": "--allow-connect",
    "allow_private": "--lan",
    "announce": "--announce",
    "ephemeral": "--ephemeral",
    "key": "--key",
    "listen": "--listen",
    "new_key": "--new-key",
    "punch.enabled": "--no-p2p",
    "punch.retry": "--punch-retry",
    "relays": "--relay",
    "stats_interval": "--stats-interval",
    "transports.quic": "--no-quic",
}
"""Settings that have a flag of their own. `--set` serves the others."""

_SETTINGS: Final = (
    "punchbridge.config:Config",
    "punchbridge.cli.relay:RelaySettings",
    "punchbridge_node.commands.flags:NodeProgram",
)
"""The values that programs read. The node is above this room: it is named as text, as its commands are."""

_SCRIPTS: Final = ("PUNCHBRIDGE_LAB_PROGRAM",)
"""Variables that the scripts of the repository read."""


def read(
    base: V,
    *,
    file: Path | None,
    pairs: Sequence[str],
    flags: Mapping[str, Any],
    flagged: Mapping[str, str] = FLAGS,
    follow: Callable[[V], V] | None = None,
) -> V:
    """The value of a program. `base`: its defaults; `pairs`: its `--set`; `flags`: dotted keys, None where not given.

    follow: makes the defaults from what was said, where some of them follow from other settings; what was said is then
    said over these. Raises ConfigError that names the file, the variable or the key.
    """
    text = ""
    if file is not None:
        from punchbridge.api.configuration import read_file

        text = read_file(file)
    given = {key: list(one) if isinstance(one, tuple) else one for key, one in flags.items() if one is not None}

    def over(value: V) -> V:
        try:
            value = apply(value, parse(text, str(file)))
        except ConfigError as problem:
            raise ConfigError(f"{file}: {problem}") from None
        value = apply(value, from_environment(os.environ, value))
        value = apply(value, from_pairs(pairs, value, flagged))
        return apply(value, tables(given))

    value = over(base)
    return value if follow is None else over(follow(value))


def check_environment(environment: Mapping[str, str], app: App) -> None:
    """Refuses a PUNCHBRIDGE_ variable that no command and no setting has. Raises ConfigError."""
    from punchbridge.config import Config

    names = {name for name in environment if name.startswith(PREFIX)}.difference(_SCRIPTS)
    names -= {setting.variable for setting in settings(Config())}
    if names:  # asking the commands means to load them all
        known = {*_variables(app), *(one.variable for value in _programs() for one in settings(value))}
        for name in sorted(names - known):
            raise unknown(name, known, "variable")


def _programs() -> Iterator[Checked]:
    for name in _SETTINGS:
        module, _, kind = name.partition(":")
        yield getattr(import_module(module), kind)()


def _variables(app: App) -> list[str]:
    from punchbridge.cli.reference import commands

    found: list[str] = []
    for _, command in commands(app):
        for one in command.assemble_argument_collection():
            found += one.parameter.env_var or ()
    return found
