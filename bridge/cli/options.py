"""Flags that several commands share, and how their text becomes checked values.

Each flag has one environment variable, named after it. Addresses are checked here, before anything starts, so that
a typing error ends with code 2 and never half-way. Knows no network.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cyclopts import Group, Parameter

from punchbridge.cli import PREFIX
from punchbridge.cli.settings import FLAGS, read
from punchbridge.config import Config
from punchbridge.errors import ConfigError

if TYPE_CHECKING:
    from punchbridge.addresses import Multiaddr
    from punchbridge.config import Transports

OUTPUT = Group("Output", sort_key=90)
NETWORK = Group("Network", sort_key=10)

DEFAULTS: Final = Config()

C = TypeVar("C", bound=Config)


def flag(name: str, text: str, *, alias: str | tuple[str, ...] = (), env: str | None = None, **more: Any) -> Parameter:
    """A flag `--name` with its help text and its environment variable."""
    variable = env or PREFIX + name.upper().replace("-", "_")
    return Parameter(
        name=f"--{name}",
        alias=alias or None,
        help=text,
        env_var=variable,
        negative=(),
        **{"show_default": True, **more},
    )


def setting(name: str, text: str, *, shown: str, **more: Any) -> Parameter:
    """The flag of a setting: its default is none, since a file may have the setting. `shown`: what then holds."""
    return flag(name, text, **{"group": NETWORK, **more, "show_default": shown})


ConfigFlag = Annotated[
    Path | None,
    setting("config", "TOML file with settings; see docs/configuration.md.", shown="none"),
]
SetFlag = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="KEY=VALUE of a setting that has no flag: limits.swarm.connections=4000. Repeatable.",
        group=NETWORK,
        negative=(),
        show_default=False,
    ),
]


PROTOCOL: Final = "/punchbridge/grpc/1.0.0"
"""As `punchbridge.GRPC_PROTOCOL`; `--help` tells it without loading the network."""

ProtocolFlag = Annotated[str, flag("protocol", "Stream protocol id; both sides need the same.", group=NETWORK)]


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """What is printed, and where."""

    json: Annotated[bool, flag("json", "Print one JSON event a line on stdout.", group=OUTPUT)] = False
    quiet: Annotated[bool, flag("quiet", "Print only data and errors.", alias="-q", group=OUTPUT)] = False
    verbose: Annotated[
        int, flag("verbose", "Log to stderr; twice (-vv) for everything.", alias="-v", count=True, group=OUTPUT)
    ] = 0


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """What every command that connects needs."""

    config: ConfigFlag = None
    set: SetFlag = ()
    listen: Annotated[
        tuple[str, ...] | None,
        setting(
            "listen",
            "Local multiaddr to listen on; also the source of every dial. Nothing else is listened on then: a TCP "
            "address alone means no QUIC. Repeatable.",
            shown=" ".join(map(str, DEFAULTS.listen)),
        ),
    ] = None
    no_quic: Annotated[
        bool | None, setting("no-quic", "Speak TCP alone: neither listen on QUIC addresses nor dial them.", shown="no")
    ] = None
    announce: Annotated[
        tuple[str, ...] | None,
        setting("announce", "Multiaddr that others are told as well: a forwarded port. Repeatable.", shown="none"),
    ] = None
    key: Annotated[
        Path | None,
        setting("key", "Identity key file; it has to be there.", shown="kept for you", env=f"{PREFIX}KEY_FILE"),
    ] = None
    new_key: Annotated[bool | None, setting("new-key", "Make the file of --key when it is absent.", shown="no")] = None
    ephemeral: Annotated[
        bool | None, setting("ephemeral", "Be a peer that nobody has seen before, for this run alone.", shown="no")
    ] = None
    no_p2p: Annotated[
        bool | None, setting("no-p2p", "Stay on the relay: send no hole-punching message at all.", shown="no")
    ] = None
    punch_retry: Annotated[
        float | None,
        setting(
            "punch-retry",
            "Seconds between a failed run of punches and the next; doubles from there.",
            shown=f"{DEFAULTS.punch.retry:g}",
        ),
    ] = None
    lan: Annotated[bool | None, setting("lan", "Announce and dial private and loopback addresses too.", shown="no")] = (
        None
    )

    def configuration(
        self,
        *,
        relays: Sequence[str] | None = None,
        key: Path | None = None,
        access: Mapping[str, Any] | None = None,
    ) -> Config:
        """What file, environment and flags say together. As `over`; access: the flags about who may call."""
        return self.over(Config(), relays=relays, key=key, more=access)

    def over(
        self,
        base: C,
        *,
        relays: Sequence[str] | None = None,
        key: Path | None = None,
        more: Mapping[str, Any] | None = None,
        flagged: Mapping[str, str] | None = None,
    ) -> C:
        """What file, environment and flags say over the command's defaults. Raises ConfigError and AddressError.

        relays: those of the command's own flag; None for a command that holds no reservation. key: the file that the
        command takes, or makes, when none is named. more: what other flags say, by dotted keys; flagged: the settings
        that have such a flag.
        """
        config = read(
            base,
            file=self.config,
            pairs=self.set,
            flags={
                "listen": self.listen,
                "transports.quic": None if self.no_quic is None else not self.no_quic,
                "announce": self.announce,
                "relays": tuple(relays) if relays else None,
                "key": None if self.key is None else str(self.key),
                "ephemeral": self.ephemeral,
                "new_key": self.new_key,
                "punch.enabled": None if self.no_p2p is None else not self.no_p2p,
                "punch.retry": self.punch_retry,
                "allow_private": self.lan,
                **(more or {}),
            },
            flagged={**FLAGS, **(flagged or {})},
        )
        kept = config.relays if relays is not None else ()
        config = replace(config, relays=kept)
        if config.key is None and key is not None and not config.ephemeral:
            config = replace(config, key=str(key), new_key=True)
        checked_listen([str(addr) for addr in config.listen], DEFAULTS.listen, config.transports)
        checked_relays([str(addr) for addr in config.relays], config.transports)
        return config


def default_key() -> Path:
    """The identity that `relay`, `listen`, `expose` and `key` use when no --key is given."""
    from punchbridge.client_keys import state_directory

    return state_directory() / "key"


def checked_listen(addrs: Sequence[str], default: Sequence[Any], transports: Transports) -> tuple[Multiaddr, ...]:
    """Listening addresses: an IP and TCP or QUIC, no peer id, no circuit; of the default ones, those whose transport is
    there. Raises AddressError."""
    from punchbridge.addresses import is_relayed, parse, spoken_endpoint
    from punchbridge.api.configuration import listening
    from punchbridge.errors import AddressError

    for text in addrs:
        addr = parse(text)
        if is_relayed(addr) or spoken_endpoint(addr).kind.startswith("dns"):
            raise AddressError(
                f"cannot listen on {text!r}: expected /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1, or ip6"
            )
    return listening(addrs, default, transports)


def checked_relays(addrs: Sequence[str], transports: Transports | None = None) -> list[str]:
    """Relay addresses: direct, ending in /p2p/ID. transports: those that are spoken, where it matters whether theirs is
    there. Raises AddressError."""
    from punchbridge.addresses import is_relayed, parse, peer_of, spoken_endpoint
    from punchbridge.errors import AddressError
    from punchbridge.transport.absent import absent, check_present

    missing = absent(transports) if addrs and transports is not None else {}
    for text in addrs:
        addr = parse(text)
        if is_relayed(addr) or peer_of(addr) is None:
            raise AddressError(f"not a relay address: {text!r}; expected /ip4/ADDRESS/tcp/PORT/p2p/RELAY-ID")
        spoken_endpoint(addr)
        check_present(addr, missing)
    return list(addrs)


TARGET: Final = "TARGET"

_MOST_INPUT: Final = 4096
"""Characters read for a TARGET from stdin; a ticket has a few hundred at most."""


def target_argument(text: str) -> Parameter:
    """The argument TARGET. It may hold a secret, so it need not stand among the arguments, which others may see."""
    return Parameter(
        help=f"{text} `-` reads it from stdin.",
        name=TARGET,
        env_var=PREFIX + TARGET,
    )


def given_target(text: str) -> str:
    """The TARGET itself, read from stdin when the argument is `-`. Raises AddressError."""
    if text != "-":
        return text.strip()
    line = sys.stdin.readline(_MOST_INPUT).strip()
    if not line:
        from punchbridge.errors import AddressError

        raise AddressError("stdin holds no TARGET; its first line is to be the ticket or address")
    return line


def checked_target(text: str) -> str:
    """The peer id of a TARGET: a ticket, or a circuit or direct multiaddr that ends in /p2p/ID. Raises AddressError."""
    from punchbridge.access.ticket import is_ticket, parse_ticket
    from punchbridge.addresses import circuit_of, parse, peer_of, spoken_endpoint
    from punchbridge.errors import AddressError
    from punchbridge.identity import peer_text

    if is_ticket(text):
        return peer_text(parse_ticket(text).peer)
    if not text.startswith("/"):
        raise AddressError(f"{text!r} is no address; copy the whole line that the listener printed, /ip4/…/p2p/ID")
    addr = parse(text)
    peer = peer_of(addr)
    circuit = circuit_of(addr)
    if peer is None or (circuit is not None and circuit.target is None):
        raise AddressError(f"{text!r} does not end in /p2p/ID; copy the whole line that the listener printed")
    if circuit is None:
        spoken_endpoint(addr)
    return peer_text(peer)


def positive(**values: float) -> None:
    """Raises ConfigError for the first value that is negative (0 means none or for ever)."""
    for name, value in values.items():
        if not value >= 0:
            raise ConfigError(f"--{name.replace('_', '-')} must not be negative: {value:g}")
