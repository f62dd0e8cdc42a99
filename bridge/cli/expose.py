"""`punchbridge expose`: a gRPC server in any language, unmodified, made reachable over the bridge.

Bytes are carried, not read: whatever speaks over TCP or a unix socket passes. The work is that of
`punchbridge.local.expose`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from punchbridge.cli.callers import Callers, OpenFlag
from punchbridge.cli.options import NETWORK, PROTOCOL, NetworkOptions, Output, ProtocolFlag, default_key, flag, positive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from punchbridge.api.trio import TrioBridge
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.report import Reporter
    from punchbridge.cli.service import TrioFeed
    from punchbridge.config import Config

CALLERS: Final = Callers()
ENDPOINT: Final = NetworkOptions()
OUTPUT_FLAGS: Final = Output()

RelayFlag = Annotated[
    tuple[str, ...],
    flag("relay", "Relay to be reachable through, ending in /p2p/ID. Repeatable.", group=NETWORK),
]
TimeoutFlag = Annotated[
    float,
    flag("timeout", "Seconds for the first relay to accept; 0: keep trying for ever.", group=NETWORK),
]
ProxyFlag = Annotated[
    bool,
    flag(
        "proxy-protocol", "Begin each connection with a PROXY v2 header that tells the server who calls.", group=NETWORK
    ),
]


def expose(
    server: Annotated[str, Parameter(help="Where the server listens: HOST:PORT or unix:PATH.")],
    /,
    *,
    relay: RelayFlag = (),
    protocol: ProtocolFlag = PROTOCOL,
    proxy_protocol: ProxyFlag = False,
    timeout: TimeoutFlag = 30.0,
    callers: Callers = CALLERS,
    open: OpenFlag = None,
    endpoint: NetworkOptions = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Make a gRPC server (any language) reachable through relays; prints a ticket for one caller.

    The ticket stands alone on the first line: give it to whoever is to run `punchbridge forward TICKET`. It lets one
    peer in, for good, and is a secret until then; `punchbridge invite` makes more, --allow names peers without any.
    Each stream of a peer becomes a connection to the server; with --proxy-protocol the server has to expect the
    header. The identity is kept in $XDG_STATE_HOME/punchbridge/key unless --key names another file, the lists beside
    it. SIGTERM drains and exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        from punchbridge.cli.service import serve
        from punchbridge.local import expose as exposing
        from punchbridge.local.places import parse_place
        from punchbridge.local.target import check_protocol

        positive(timeout=timeout)
        parse_place(server)
        check_protocol(protocol)
        access = {**callers.flags, "access.anyone": open}
        config = endpoint.configuration(relays=relay, key=default_key(), access=access)
        splice = partial(exposing.run, place=server, protocol=protocol, proxy_protocol=proxy_protocol)
        return serve(report, config, partial(_expose, report, config, splice, timeout), reloads=True)

    return run(program, report, verbose=bool(out.verbose))


async def _expose(
    report: Reporter,
    config: Config,
    splice: Callable[..., Awaitable[None]],
    timeout: float,  # noqa: ASYNC109 - of the first reservation alone
    bridge: TrioBridge,
    feed: TrioFeed,
) -> Exit:
    """Serves until cancelled: first the streams, then the relays, then the word to the callers."""
    import trio

    from punchbridge.cli.doorway import Doorway
    from punchbridge.cli.reservations import Reservations
    from punchbridge.cli.service import direct_addrs

    relays, addrs = tuple(str(one) for one in config.relays), list[str]()
    reservations, doorway = Reservations(report, relays, found=addrs.append), Doorway(report, config)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(partial(splice, bridge.host))
        report.note(f"exposing {place}")
        if relays:
            with trio.move_on_after(timeout or float("inf")) as limit:
                await reservations.first(feed)
            if limit.cancelled_caught:
                raise reservations.late(timeout)
        else:
            addrs += direct_addrs(bridge)
        while True:
            if addrs:
                await doorway.open(bridge.host)
                for addr in addrs:
                    report.data(addr)
                addrs.clear()
            reservations.note(await feed.get())
