"""`punchbridge forward`: a local port for gRPC clients in any language, which leads to an exposed server.

Bytes are carried, not read: whatever speaks over TCP or a unix socket passes. The work is that of
`punchbridge.local.forward`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from punchbridge.cli.options import NETWORK, PROTOCOL, Endpoint, Output, ProtocolFlag, checked_target, flag, positive

if TYPE_CHECKING:
    from punchbridge.api.trio import TrioBridge
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.service import TrioFeed

ENDPOINT: Final = Endpoint()
OUTPUT_FLAGS: Final = Output()

BindFlag = Annotated[
    str,
    flag(
        "bind",
        "Where local clients connect: unix:PATH, for your user alone, or HOST:PORT (port 0: any), for root as well.",
        group=NETWORK,
    ),
]
AnyUserFlag = Annotated[bool, flag("any-user", "Let every user of this machine connect to HOST:PORT.", group=NETWORK)]


def forward(
    target: Annotated[str, Parameter(help="Address that `expose` printed, ending in /p2p/ID.")],
    /,
    *,
    bind: BindFlag = "127.0.0.1:0",
    any_user: AnyUserFlag = False,
    path: Annotated[
        Literal["any", "direct", "relay"], flag("path", "Path that connections may take.", group=NETWORK)
    ] = "any",
    protocol: ProtocolFlag = PROTOCOL,
    timeout: Annotated[float, flag("timeout", "Seconds for the first connection to the peer.", group=NETWORK)] = 30.0,
    endpoint: Endpoint = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Open a local port that leads to an exposed server; prints the bound address.

    Each local connection becomes a stream, on the best path there is when it opens. The identity is made afresh
    unless --key names a file. SIGTERM drains and exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        import trio

        from punchbridge.cli.exits import Exit
        from punchbridge.cli.service import serve
        from punchbridge.errors import DialTimeout
        from punchbridge.local import forward as forwarding
        from punchbridge.local.places import parse_place
        from punchbridge.local.target import check_protocol

        positive(timeout=timeout)
        checked_target(target)
        parse_place(bind)
        check_protocol(protocol)

        async def work(bridge: TrioBridge, feed: TrioFeed) -> Exit:
            report.progress("connecting")
            with trio.move_on_after(timeout or float("inf")) as limit:
                report.path = (await bridge.connect(target)).path
            if limit.cancelled_caught:
                raise DialTimeout(f"no connection to {target} within {timeout:g} s; is the other side running?")
            report.progress(None)
            async with trio.open_nursery() as nursery:
                carry = partial(
                    forwarding.run, bridge.host, target, bind, protocol=protocol, path=path, any_user=any_user
                )
                place = await nursery.start(carry)
                report.note("connect local clients to:")
                report.data(str(place))
                report.detail["bind"] = str(place)
            return Exit.DONE

        return serve(report, endpoint.configuration(), work)

    return run(program, report, verbose=bool(out.verbose))
