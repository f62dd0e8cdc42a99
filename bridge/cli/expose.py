"""`punchbridge expose`: a gRPC server in any language, unmodified, made reachable over the bridge.

Bytes are carried, not read: whatever speaks over TCP or a unix socket passes. The work is that of
`punchbridge.local.expose`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from punchbridge.cli.options import NETWORK, PROTOCOL, Endpoint, Output, ProtocolFlag, default_key, flag, positive

if TYPE_CHECKING:
    from punchbridge.api.trio import TrioBridge
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.service import TrioFeed

ENDPOINT: Final = Endpoint()
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
    endpoint: Endpoint = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Make a gRPC server (any language) reachable through relays; prints the address to forward to.

    Each stream of a peer becomes a connection to the server. With --proxy-protocol the server has to expect the
    header. The identity is kept in $XDG_STATE_HOME/punchbridge/key unless --key names another file. SIGTERM drains and
    exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        import trio

        from punchbridge.cli.reservations import Reservations
        from punchbridge.cli.service import direct_addrs, serve
        from punchbridge.local import expose as exposing
        from punchbridge.local.places import parse_place
        from punchbridge.local.target import check_protocol

        positive(timeout=timeout)
        parse_place(server)
        check_protocol(protocol)
        config = endpoint.configuration(relays=relay, key=default_key())

        relays = tuple(str(one) for one in config.relays)

        async def work(bridge: TrioBridge, feed: TrioFeed) -> Exit:
            reservations = Reservations(report, relays, hint="punchbridge forward --bind 127.0.0.1:50051")
            async with trio.open_nursery() as nursery:
                take = partial(exposing.run, bridge.host, server, protocol=protocol, proxy_protocol=proxy_protocol)
                place = await nursery.start(take)
                report.note(f"exposing {place}")
                if relays:
                    with trio.move_on_after(timeout or float("inf")) as limit:
                        await reservations.first(feed)
                    if limit.cancelled_caught:
                        raise reservations.late(timeout)
                else:
                    for addr in direct_addrs(bridge):
                        report.data(addr)
                while True:
                    reservations.note(await feed.get())

        return serve(report, config, work)

    return run(program, report, verbose=bool(out.verbose))
