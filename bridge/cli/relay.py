"""`punchbridge relay`: flags of the relay program, its signals and its exit code.

Every field of `punchbridge_relay.limits.RelayLimits` is a flag with the same default. Knows no protocol;
`punchbridge_relay.program` does the work. The flag helpers are the relay's own, since the relay and the node do not
import each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group, Parameter

from punchbridge.cli.lines import Lines, Tone, short
from punchbridge_relay.events import CircuitClosed, CircuitOpened, RelayListening, RelayStats
from punchbridge_relay.limits import RelayLimits

if TYPE_CHECKING:
    from punchbridge.addresses import Multiaddr
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.report import Reporter
    from punchbridge_relay.program import RelayConfig

PREFIX: Final = "PUNCHBRIDGE_"
DEFAULT_LISTEN: Final = ("/ip4/0.0.0.0/tcp/4001",)

LIMITS = Group("Limits (0: unlimited)", sort_key=20)
ACCESS = Group("Access", sort_key=30)
OUTPUT = Group("Output", sort_key=90)

_DEFAULTS: Final = RelayLimits()


def flag(name: str, text: str, *, alias: str | None = None, env: str | None = None, **more: Any) -> Parameter:
    """A flag `--name` with its help text and its environment variable."""
    variable = env or PREFIX + name.upper().replace("-", "_")
    return Parameter(name=f"--{name}", alias=alias, help=text, env_var=variable, negative=(), show_default=True, **more)


def limit(name: str, text: str) -> Parameter:
    """A limit's flag; its variable says that it is the relay's."""
    return flag(name, text, env=f"{PREFIX}RELAY_{name.upper().replace('-', '_')}", group=LIMITS)


@Parameter(name="*")
@dataclass(frozen=True)
class LimitFlags:
    """One flag for each field of RelayLimits."""

    reservations: Annotated[int, limit("reservations", "Reservations at once.")] = _DEFAULTS.reservations
    reservations_per_address: Annotated[
        int, limit("reservations-per-address", "Reservations from one IPv4 address or IPv6 /64.")
    ] = _DEFAULTS.reservations_per_address
    reservation_ttl: Annotated[int, limit("reservation-ttl", "Seconds that a reservation lives; clients renew it.")] = (
        _DEFAULTS.reservation_ttl
    )
    circuits: Annotated[int, limit("circuits", "Circuits at once.")] = _DEFAULTS.circuits
    circuits_per_peer: Annotated[
        int, limit("circuits-per-peer", "Circuits of one peer, as source and as target apart.")
    ] = _DEFAULTS.circuits_per_peer
    circuit_seconds: Annotated[int, limit("circuit-seconds", "Seconds until a circuit is cut, idle or not.")] = (
        _DEFAULTS.circuit_seconds
    )
    circuit_bytes: Annotated[int, limit("circuit-bytes", "Bytes that a circuit carries in each direction.")] = (
        _DEFAULTS.circuit_bytes
    )
    hop_streams: Annotated[int, limit("hop-streams", "Requests under way at once.")] = _DEFAULTS.hop_streams
    hop_streams_per_peer: Annotated[int, limit("hop-streams-per-peer", "Requests under way at once from one peer.")] = (
        _DEFAULTS.hop_streams_per_peer
    )
    peer_burst: Annotated[
        int, limit("peer-burst", "Reservations, and apart from them circuits, that a peer may ask for at once.")
    ] = _DEFAULTS.peer_burst
    peer_interval: Annotated[float, limit("peer-interval", "Seconds until a peer may ask for one more.")] = (
        _DEFAULTS.peer_interval
    )
    address_burst: Annotated[int, limit("address-burst", "As --peer-burst, for one IPv4 address or IPv6 /64.")] = (
        _DEFAULTS.address_burst
    )
    address_interval: Annotated[float, limit("address-interval", "Seconds until an address may ask for one more.")] = (
        _DEFAULTS.address_interval
    )

    def limits(self) -> RelayLimits:
        """The checked limits. Raises ConfigError."""
        return RelayLimits(**{item.name: getattr(self, item.name) for item in fields(self)})


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """What is printed, and where."""

    json: Annotated[bool, flag("json", "Print one JSON event a line on stdout.", group=OUTPUT)] = False
    quiet: Annotated[bool, flag("quiet", "Print only data and errors.", alias="-q", group=OUTPUT)] = False
    verbose: Annotated[
        int, flag("verbose", "Log to stderr; twice (-vv) for everything.", alias="-v", count=True, group=OUTPUT)
    ] = 0


NO_LIMIT_FLAGS: Final = LimitFlags()
OUTPUT_DEFAULTS: Final = Output()


def relay(
    *,
    listen: Annotated[
        tuple[str, ...],
        flag("listen", "Multiaddr to listen on. Repeatable.", consume_multiple=True),
    ] = DEFAULT_LISTEN,
    key: Annotated[
        Path | None,
        flag(
            "key",
            "Identity key file, made when absent; default $XDG_STATE_HOME/punchbridge/relay-key.",
            env=f"{PREFIX}KEY_FILE",
        ),
    ] = None,
    allow: Annotated[
        tuple[str, ...],
        flag("allow", "Peer id or IP network that may use the relay; one makes it a closed list.", group=ACCESS),
    ] = (),
    deny: Annotated[
        tuple[str, ...],
        flag("deny", "Peer id or IP network that may not; wins over --allow.", group=ACCESS),
    ] = (),
    stats_interval: Annotated[float, flag("stats-interval", "Seconds between two relay.stats events.")] = 10.0,
    lan: Annotated[bool, flag("lan", "Announce private and loopback addresses too.")] = False,
    limits: LimitFlags = NO_LIMIT_FLAGS,
    out: Output = OUTPUT_DEFAULTS,
) -> int:
    """Run a circuit relay (libp2p circuit v2) that others meet at.

    Prints its addresses, the --relay value of the others, on stdout. SIGTERM drains and exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet, lines=LINES)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        import trio

        from punchbridge.errors import ConfigError
        from punchbridge.identity import load_or_create
        from punchbridge_relay.access import Access, Rules
        from punchbridge_relay.program import RelayConfig

        if not stats_interval > 0:
            raise ConfigError(f"--stats-interval must be above 0: {stats_interval:g}")
        config = RelayConfig(
            identity=load_or_create(key or default_key()),
            listen=_addresses(listen),
            limits=limits.limits(),
            access=Access(Rules.parse(allow), Rules.parse(deny)),
            stats_interval=stats_interval,
            allow_private=lan,
        )
        return trio.run(_serve, config, report)

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
    base = os.environ.get("XDG_STATE_HOME", "")
    state = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return state / "punchbridge" / "relay-key"


def _addresses(texts: tuple[str, ...]) -> tuple[Multiaddr, ...]:
    """The listening addresses. Raises AddressError for one that is not IP and TCP alone."""
    from punchbridge.addresses import is_relayed, parse, spoken_endpoint
    from punchbridge.errors import AddressError

    found = []
    for text in texts:
        addr = parse(text)
        if is_relayed(addr) or spoken_endpoint(addr).kind.startswith("dns"):
            raise AddressError(f"cannot listen on {text!r}: expected /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT")
        found.append(addr)
    return tuple(found)


async def _serve(config: RelayConfig, report: Reporter) -> Exit:
    import trio

    from punchbridge.cli.exits import Exit
    from punchbridge.cli.signals import until_signal
    from punchbridge.events import Event
    from punchbridge_relay.program import run

    def tell(event: Event) -> None:
        if isinstance(event, RelayListening):
            for addr in event.addrs:
                report.data(addr)

    report.hub.subscribe(tell)

    async def work(scope: trio.CancelScope) -> Exit:
        with scope:
            await run(config, report.hub)
        return Exit.DONE

    return await until_signal(work)
