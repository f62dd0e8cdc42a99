"""`punchbridge relay`: flags of the relay program, its signals and its exit code.

Every field of `punchbridge_relay.limits.RelayLimits` is a flag with the same default. Knows no protocol;
`punchbridge_relay.program` does the work.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter

from punchbridge.cli.callers import ACCESS, Callers
from punchbridge.cli.lines import Lines, Tone, short
from punchbridge.cli.options import ConfigFlag, Output, SetFlag, checked_listen, flag, setting
from punchbridge.cli.process import fitted_relay, open_files
from punchbridge.cli.settings import FLAGS, read
from punchbridge.config import AccessLists, Limits, Programs, Transports
from punchbridge.config.load import PREFIX
from punchbridge.config.values import Checked, Seconds, Texts
from punchbridge.version import AGENT
from punchbridge_relay.events import CircuitClosed, CircuitOpened, RelayListening, RelayStats
from punchbridge_relay.limits import RelayLimits

if TYPE_CHECKING:
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.report import Reporter
    from punchbridge.config.config import Addresses, Key
    from punchbridge_relay.program import RelayConfig

LISTEN: Final = ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1")

LIMITS = Group("Limits (0: unlimited)", sort_key=20)

_DEFAULTS: Final = RelayLimits()


@dataclass(frozen=True, kw_only=True)
class RelaySettings(Checked):
    """What a relay program is told: the tables and keys of its file, and its variables."""

    key: Key = None
    """Identity key file, which has to be there; by default $XDG_STATE_HOME/punchbridge/relay-key, which is made."""

    new_key: bool = False
    """Make the key file that `key` names when it is missing."""

    listen: Addresses = LISTEN
    """Multiaddrs to listen on: by default every IPv4 interface, with TCP and QUIC; when another program holds that UDP
    port, with TCP alone, which the event transport.absent tells. What is named is all, and has to be free."""

    transports: Transports = Transports()
    """Which transports are spoken."""

    announce: Addresses = ()
    """Multiaddrs that clients are told beside those found: a forwarded port, a name. They must lead here."""

    access: AccessLists = AccessLists(until_listed=True)  # noqa: RUF009 - a frozen value
    """Who may reserve."""

    allow_connect: Texts = ()
    """Peer ids and IP networks that alone may open circuits, beside those that may reserve; none: anybody."""

    allow_private: bool = False
    """Announce private and loopback addresses too."""

    agent: str = AGENT
    """The name and version that identify tells others."""

    stats_interval: Seconds = 10.0
    """Between two relay.stats events."""

    relay: RelayLimits = _DEFAULTS
    """What the relay grants."""

    limits: Limits = Limits()
    """The bounds of the rooms below. Those of connections follow from `relay` where they are not set."""

    programs: Programs = Programs()
    """What only the programs of the command line need."""


def limit(name: str, text: str) -> Parameter:
    """A limit's flag; its variable says that it is the relay's."""
    shown = getattr(_DEFAULTS, name.replace("-", "_"))
    return flag(
        name, text, env=f"{PREFIX}RELAY_{name.upper().replace('-', '_')}", group=LIMITS, show_default=f"{shown:g}"
    )


@Parameter(name="*")
@dataclass(frozen=True)
class LimitFlags:
    """One flag for each field of RelayLimits; None where it is not given."""

    reservations: Annotated[int | None, limit("reservations", "Reservations at once.")] = None
    reservations_per_address: Annotated[
        int | None, limit("reservations-per-address", "Reservations from one IPv4 address or IPv6 /64.")
    ] = None
    reservations_per_56: Annotated[int | None, limit("reservations-per-56", "Reservations from one IPv6 /56.")] = None
    reservations_per_48: Annotated[int | None, limit("reservations-per-48", "Reservations from one IPv6 /48.")] = None
    reservation_ttl: Annotated[
        int | None, limit("reservation-ttl", "Seconds that a reservation lives; clients renew it.")
    ] = None
    circuits: Annotated[int | None, limit("circuits", "Circuits at once.")] = None
    circuits_per_peer: Annotated[
        int | None, limit("circuits-per-peer", "Circuits of one peer, as source and as target apart.")
    ] = None
    circuit_seconds: Annotated[int | None, limit("circuit-seconds", "Seconds until a circuit is cut, idle or not.")] = (
        None
    )
    circuit_bytes: Annotated[int | None, limit("circuit-bytes", "Bytes that a circuit carries in each direction.")] = (
        None
    )
    hop_streams: Annotated[int | None, limit("hop-streams", "Requests under way at once.")] = None
    hop_streams_per_peer: Annotated[
        int | None, limit("hop-streams-per-peer", "Requests under way at once from one peer.")
    ] = None
    hop_streams_per_address: Annotated[
        int | None, limit("hop-streams-per-address", "Requests under way at once from one IPv4 address or IPv6 /48.")
    ] = None
    peer_burst: Annotated[
        int | None, limit("peer-burst", "Reservations, and apart from them circuits, that a peer may ask for at once.")
    ] = None
    peer_interval: Annotated[float | None, limit("peer-interval", "Seconds until a peer may ask for one more.")] = None
    address_burst: Annotated[
        int | None, limit("address-burst", "As --peer-burst, for one IPv4 address or IPv6 /64.")
    ] = None
    address_interval: Annotated[
        float | None, limit("address-interval", "Seconds until an address may ask for one more.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class RelayFlags:
    """The other flags; None where one is not given."""

    config: ConfigFlag = None
    set: SetFlag = ()
    listen: Annotated[
        tuple[str, ...] | None,
        setting(
            "listen",
            "Multiaddr to listen on. Nothing else is listened on then: a TCP address alone means no QUIC. Repeatable.",
            shown=" ".join(LISTEN),
        ),
    ] = None
    no_quic: Annotated[bool | None, setting("no-quic", "Speak TCP alone: listen on no QUIC address.", shown="no")] = (
        None
    )
    announce: Annotated[
        tuple[str, ...] | None,
        setting("announce", "Multiaddr that clients are told as well: a forwarded port. Repeatable.", shown="none"),
    ] = None
    key: Annotated[
        Path | None,
        setting(
            "key",
            "Identity key file; one that is named has to be there.",
            shown="$XDG_STATE_HOME/punchbridge/relay-key",
            env=f"{PREFIX}KEY_FILE",
        ),
    ] = None
    new_key: Annotated[bool | None, setting("new-key", "Make the file of --key when it is absent.", shown="no")] = None
    allow_connect: Annotated[
        tuple[str, ...] | None,
        setting(
            "allow-connect",
            "Peer id or network that may open circuits to those that reserve; without it anybody may. Repeatable.",
            shown="anybody",
            group=ACCESS,
        ),
    ] = None
    stats_interval: Annotated[
        float | None, setting("stats-interval", "Seconds between two relay.stats events.", shown="10")
    ] = None
    lan: Annotated[bool | None, setting("lan", "Announce private and loopback addresses too.", shown="no")] = None

    def settings(self, limits: LimitFlags, callers: Callers) -> RelaySettings:
        """What file, environment and flags say together. Raises ConfigError."""
        own = {f"relay.{item.name}": item.name for item in fields(limits)}
        return read(
            RelaySettings(),
            file=self.config,
            pairs=self.set,
            flags={
                "key": None if self.key is None else str(self.key),
                "new_key": self.new_key,
                "listen": self.listen,
                "transports.quic": None if self.no_quic is None else not self.no_quic,
                "announce": self.announce,
                "allow_connect": self.allow_connect,
                **callers.flags,
                "allow_private": self.lan,
                "stats_interval": self.stats_interval,
                **{key: getattr(limits, name) for key, name in own.items()},
            },
            flagged={**FLAGS, **{key: f"--{name.replace('_', '-')}" for key, name in own.items()}},
            follow=lambda said: RelaySettings(limits=Limits(swarm=said.relay.swarm())),
        )


NO_FLAGS: Final = RelayFlags()
NO_LIMIT_FLAGS: Final = LimitFlags()
NO_CALLERS: Final = Callers()
OUTPUT_DEFAULTS: Final = Output()


def relay(
    *,
    flags: RelayFlags = NO_FLAGS,
    limits: LimitFlags = NO_LIMIT_FLAGS,
    callers: Callers = NO_CALLERS,
    out: Output = OUTPUT_DEFAULTS,
) -> int:
    """Run a circuit relay (libp2p circuit v2) that others meet at.

    Prints its addresses, the --relay value of the others, on stdout. Anybody may reserve until a list names somebody
    (--allow, or `punchbridge allow --key` with the relay's key); then only the listed may. SIGHUP reads the lists
    again, SIGTERM drains and exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet, lines=LINES)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        import trio

        settings = flags.settings(limits, callers)
        report.follow(settings.programs)
        config = _program(settings)
        config = replace(config, rooms=fitted_relay(config.bounds, open_files()))
        return trio.run(_serve, config, report, settings.programs.drain)

    return run(program, report, verbose=bool(out.verbose))


def _stats(event: RelayStats) -> tuple[str, Tone]:
    return f"{event.reservations} reservations, {event.circuits} circuits, {event.bytes_} bytes relayed", "dim"


def _opened(event: CircuitOpened) -> tuple[str, Tone]:
    return f"circuit {event.circuit}: {short(event.source)} → {short(event.target)}", "plain"


def _closed(event: CircuitClosed) -> tuple[str, Tone]:
    amount = f"{event.bytes_to_target}+{event.bytes_to_source} bytes, {event.seconds:.0f} s"
    return f"circuit {event.circuit} closed: {event.reason}, {amount}", "dim"


LINES: Final[Lines] = {
    RelayListening: lambda event: ("the relay accepts reservations", "good"),
    RelayStats: _stats,
    CircuitOpened: _opened,
    CircuitClosed: _closed,
}
"""The console lines of the relay's own events."""


def default_key() -> Path:
    """$XDG_STATE_HOME/punchbridge/relay-key: not the node's, so that both can run on one machine."""
    from punchbridge.client_keys import state_directory

    return state_directory() / "relay-key"


def _program(settings: RelaySettings) -> RelayConfig:
    """What the relay is made of. Raises ConfigError, AddressError, IdentityError."""
    from punchbridge.access.policy import OPEN, Access
    from punchbridge.addresses import parse, transport_of
    from punchbridge.api.configuration import access_of
    from punchbridge.errors import ConfigError
    from punchbridge.identity import Identity, load_named
    from punchbridge_relay.program import RelayConfig

    if not settings.stats_interval > 0:
        raise ConfigError("--stats-interval must be above 0")
    key, new = settings.key or default_key(), settings.new_key or settings.key is None
    listen = checked_listen([str(one) for one in settings.listen], LISTEN, settings.transports)
    sources, file = access_of(
        settings.access, str(key) if not isinstance(key, Identity) else key, settings.limits.access
    )
    return RelayConfig(
        identity=key if isinstance(key, Identity) else load_named(Path(key), new=new),
        listen=listen,
        # Nobody asked for these; TCP is what every client speaks.
        spared=() if settings.listen != LISTEN else tuple(one for one in listen if transport_of(one) == "quic-v1"),
        transports=settings.transports,
        announce=tuple(parse(str(one)) for one in settings.announce),
        limits=settings.relay,
        rooms=settings.limits,
        access=sources,
        access_file=file,
        connect=Access.of(settings.allow_connect) if settings.allow_connect else OPEN,
        stats_interval=settings.stats_interval,
        allow_private=settings.allow_private,
        agent=settings.agent,
    )


async def _serve(config: RelayConfig, report: Reporter, drain: float) -> Exit:
    import trio

    from punchbridge.cli.exits import Exit
    from punchbridge.cli.signals import until_signal
    from punchbridge.events import Event
    from punchbridge.tasks.signal import Signal
    from punchbridge_relay.program import run

    def tell(event: Event) -> None:
        if isinstance(event, RelayListening):
            for addr in event.addrs:
                report.data(addr)

    report.hub.subscribe(tell)

    async def work(scope: trio.CancelScope) -> Exit:
        with scope:
            await run(config, report.hub, reload=reload)
        return Exit.DONE

    reload = Signal()
    return await until_signal(work, drain, reload.notify)
