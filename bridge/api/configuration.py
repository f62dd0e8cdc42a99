"""How a `Config` is read, and how it becomes what a host is made of: keys loaded, addresses parsed.

What is wrong is told here, before anything is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from punchbridge.access.policy import NOBODY, OPEN, Access
from punchbridge.access.sources import Sources
from punchbridge.access.store import AccessFile, access_path
from punchbridge.addresses import Multiaddr, is_relayed, parse, peer_of
from punchbridge.config import AccessLimits, AccessLists, Config, Transports, load
from punchbridge.config.config import LISTEN
from punchbridge.errors import AddressError, ConfigError
from punchbridge.host.host import HostConfig
from punchbridge.identity import Identity, load_named
from punchbridge.transport.absent import absent, check_present, present

if TYPE_CHECKING:
    from punchbridge.config.config import Addresses, Key

__all__ = ["access_of", "configured", "host_config", "listening", "load_config"]


def load_config(path: str | Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of a TOML file and of the environment, which wins. docs/configuration.md names all of it.

    path: None reads no file. environment: by default the process's own; {} for none. A bridge reads neither by itself:
    `punchbridge.open(load_config("bridge.toml"))`. Raises ConfigError that names the file and the key.
    """
    environment = os.environ if environment is None else environment
    return load("" if path is None else read_file(path), environment, name=str(path))


def read_file(path: str | Path) -> str:
    """The text of a configuration file. Raises ConfigError when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from None


def configured(config: Config | None, fields: Mapping[str, Any]) -> Config:
    """What the caller of `open` gave: a whole value, single fields, or both. Raises ConfigError."""
    if config is not None and not isinstance(config, Config):
        raise ConfigError(f"config is a {type(config).__name__}; give a punchbridge.Config, or fields by their names")
    return (config or Config()).changed(fields)


def host_config(config: Config, *, autonat: bool = True, autonat_server: bool = False) -> HostConfig:
    """What a host is made of. Raises AddressError, ConfigError and IdentityError with what to do."""
    relays = tuple(_multiaddr(addr) for addr in config.relays)
    for addr in relays:
        if peer_of(addr) is None:
            raise AddressError(f"the relay's address {addr} must end in /p2p/ID, so that nobody can pose as the relay")
    announce = tuple(_multiaddr(addr) for addr in config.announce)
    for addr in announce:
        if is_relayed(addr):
            raise AddressError(f"cannot announce {addr}; the addresses at a relay are announced while it accepts us")
    sources, file = access_of(config.access, config.key, config.limits.access)
    return HostConfig(
        identity=_identity(config.key, new=config.new_key),
        listen=listening(config.listen, LISTEN, config.transports),
        transports=config.transports,
        relays=relays,
        announce=announce,
        agent=config.agent,
        allow_private=config.allow_private,
        punch=config.punch,
        sessions=config.sessions,
        autonat=autonat,
        autonat_server=autonat_server,
        limits=config.limits,
        times=config.times,
        access=sources,
        access_file=file,
    )


def listening(addrs: Addresses, default: Sequence[str], transports: Transports) -> tuple[Multiaddr, ...]:
    """The addresses to listen on. Of the default ones, those whose transport is there; the others were asked for, and
    are refused when it is not. Raises AddressError."""
    missing, parsed = absent(transports), tuple(_multiaddr(addr) for addr in addrs)
    if tuple(map(str, addrs)) == tuple(default):
        return present(parsed, missing)
    for addr in parsed:
        check_present(addr, missing)
    return parsed


def access_of(lists: AccessLists, key: Key, limits: AccessLimits) -> tuple[Sources, AccessFile | None]:
    """Where the lists of a program come from, read once, and the file that its commands edit; None when there is none.

    Raises ConfigError for a list that is missing or malformed."""
    file = None
    if lists.file is not None:
        file = AccessFile(Path(lists.file), limits)
    elif isinstance(key, str | Path):
        file = AccessFile(access_path(Path(key)), limits)
    sources = Sources(
        limits,
        given=Access.of(lists.allow, lists.deny) | (OPEN if lists.anyone else NOBODY),
        allow_files=[Path(one) for one in lists.allow_files],
        deny_files=[Path(one) for one in lists.deny_files],
        file=file,
        until_listed=lists.until_listed,
    )
    return sources, file


def _identity(key: Key, *, new: bool) -> Identity:
    if key is None:
        return Identity.generate()
    return key if isinstance(key, Identity) else load_named(Path(key), new=new)


def _multiaddr(addr: str | Multiaddr) -> Multiaddr:
    return parse(addr) if isinstance(addr, str) else addr
