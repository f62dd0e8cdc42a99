"""A configuration from tables, texts and variables: what a file, the environment and `--set` have in common.

A setting is one field, by its dotted key: `limits.swarm.connections`. It has one variable, named after the key. What
is unknown is refused and the nearest known name is told. This module reads no file and no environment of its own; both
are handed in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from punchbridge.config.config import Config
from punchbridge.config.unknown import unknown
from punchbridge.config.values import KINDS, Checked
from punchbridge.errors import ConfigError

__all__ = [
    "PREFIX",
    "Setting",
    "apply",
    "from_environment",
    "from_pairs",
    "from_text",
    "load",
    "parse",
    "settings",
    "tables",
]

PREFIX: Final = "PUNCHBRIDGE_"

_VARIABLES: Final = {
    "key": "KEY_FILE",
    "relays": "RELAY",
    "punch.enabled": "NO_P2P",
    "transports.quic": "NO_QUIC",
    "allow_private": "LAN",
    "access.anyone": "OPEN",
    "access.allow": "ALLOW",
    "access.allow_files": "ALLOW_FILE",
    "access.deny": "DENY",
    "access.deny_files": "DENY_FILE",
    "access.file": "ACCESS_FILE",
}
"""Variables that are named after the flag of the programs, and not after the key."""

_FLAG_TABLES: Final = ("node",)
"""Tables whose own settings have variables that are named after the flags of the programs, without the table."""

_INVERTED: Final = ("punch.enabled", "transports.quic")
"""Their variables say the contrary."""

_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("0", "false", "no", "off")

V = TypeVar("V", bound=Checked)


@dataclass(frozen=True)
class Setting:
    """One field: `kind` is the name of its unit or type."""

    key: str
    kind: str
    default: Any

    @property
    def variable(self) -> str:
        """The environment variable of this setting."""
        table, _, name = self.key.rpartition(".")
        text = name if table in _FLAG_TABLES else self.key
        return PREFIX + _VARIABLES.get(self.key, text.replace(".", "_").upper())

    @property
    def inverted(self) -> bool:
        """Whether the variable says the contrary of the key."""
        return self.key in _INVERTED


def settings(value: Checked, under: str = "") -> Iterator[Setting]:
    """Every setting below a value, with what it is there."""
    for item in fields(value):
        inner = getattr(value, item.name)
        if isinstance(inner, Checked):
            yield from settings(inner, f"{under}{item.name}.")
        else:
            yield Setting(under + item.name, str(item.type), inner)


def apply(base: V, table: Mapping[str, Any], under: str = "") -> V:
    """`base` with the fields of a table of tables. Raises ConfigError that names the key."""
    known = {item.name: item for item in fields(base)}
    changes: dict[str, Any] = {}
    for name, given in table.items():
        if name not in known:
            raise unknown(under + name, (under + other for other in known))
        old = getattr(base, name)
        if isinstance(old, Checked):
            if not isinstance(given, Mapping):
                raise ConfigError(f"{under}{name} is a table of settings; write [{under}{name}] and one key a line")
            changes[name] = apply(old, given, f"{under}{name}.")
        else:
            changes[name] = _fitting(under + name, str(known[name].type), given)
    try:
        return replace(base, **changes)
    except ConfigError as problem:
        raise ConfigError(f"{under}{problem}" if under else str(problem)) from None


def _fitting(key: str, kind: str, given: Any) -> Any:
    """The value as the field takes it. Numbers and sizes are judged by the field's own value."""
    if kind in ("Addresses", "Texts"):
        if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
            what, such = ("addresses", "/ip4/…") if kind == "Addresses" else ("texts", "…")
            raise ConfigError(f'{key} is a list of {what}; write {key} = ["{such}"]')
    elif kind not in KINDS and not isinstance(given, str):
        raise ConfigError(f"{key} is {given!r}; give a text")
    return given


def from_text(key: str, kind: str, text: str) -> Any:
    """The value of a setting as its variable, or `--set`, writes it. Raises ConfigError that names the key."""
    readers: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("Count", "Bound", "Whole", "Bytes"), int),
        **dict.fromkeys(("Seconds", "Share"), float),
        "bool": _flag,
        **dict.fromkeys(("Addresses", "Texts"), str.split),
    }
    try:
        return readers.get(kind, str)(text.strip())
    except ValueError:
        wanted = KINDS[kind][1]
        raise ConfigError(f"{key} is {text!r}; give {wanted}") from None


def _flag(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(text)


def tables(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as tables of tables."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        table = found
        *parents, name = key.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[name] = value
    return found


def from_environment(environment: Mapping[str, str], value: Checked, under: str = "") -> dict[str, Any]:
    """What the variables of an environment say about a value, as tables. Empty variables count as unset."""
    flat = {}
    for setting in settings(value, under):
        text = environment.get(setting.variable, "")
        if text:
            said = from_text(setting.variable, setting.kind, text)
            flat[setting.key.removeprefix(under)] = not said if setting.inverted else said
    return tables(flat)


def from_pairs(pairs: Iterable[str], value: Checked, flags: Mapping[str, str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as tables; `flags`: settings that have a flag of their own. Raises ConfigError."""
    known = {setting.key: setting for setting in settings(value)}
    flat = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        key = key.strip()
        if not found:
            raise ConfigError(f"--set {pair!r} is no KEY=VALUE")
        if key in flags:
            raise ConfigError(f"--set does not set {key}; {flags[key]} does")
        if key not in known:
            raise unknown(key, known)
        flat[key] = from_text(key, known[key].kind, text)
    return tables(flat)


def parse(text: str, name: str) -> dict[str, Any]:
    """The tables of a TOML text; `name` is the file's. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{name} is no TOML file: {problem}") from None


def load(
    text: str = "", environment: Mapping[str, str] | None = None, *, name: str = "the file", base: Config | None = None
) -> Config:
    """The configuration of a TOML text and an environment, which wins. Raises ConfigError.

    Unknown keys are refused. Unknown variables are not: whoever reads the environment of a whole program knows which
    others it has.
    """
    config = base or Config()
    try:
        config = apply(config, parse(text, name))
    except ConfigError as problem:
        raise ConfigError(f"{name}: {problem}") from None
    return apply(config, from_environment(environment or {}, config))
