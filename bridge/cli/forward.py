"""`punchbridge forward`: a local port for gRPC clients in any language, which leads to an exposed server.

Bytes are carried, not read: whatever speaks over TCP or a unix socket passes. The work is that of
`punchbridge.local.forward`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal

from punchbridge.cli.options import (
    NETWORK,
    PROTOCOL,
    NetworkOptions,
    Output,
    ProtocolFlag,
    checked_target,
    flag,
    given_target,
    positive,
    target_argument,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from punchbridge.api.trio import TrioBridge
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.report import Reporter
    from punchbridge.cli.service import TrioFeed
    from punchbridge.local.target import Target

ENDPOINT: Final = NetworkOptions()
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
    target: Annotated[str, target_argument("Ticket or address that `expose` printed.")],
    /,
    *,
    bind: BindFlag = "127.0.0.1:0",
    any_user: AnyUserFlag = False,
    path: Annotated[
        Literal["any", "direct", "relay"], flag("path", "Path that connections may take.", group=NETWORK)
    ] = "any",
    protocol: ProtocolFlag = PROTOCOL,
    timeout: Annotated[float, flag("timeout", "Seconds for the first connection to the peer.", group=NETWORK)] = 30.0,
    endpoint: NetworkOptions = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Open a local port that leads to an exposed server; prints the bound address.

    Each local connection becomes a stream, on the best path there is when it opens. The identity is kept, so that who
    was let in stays so; --key names another, --ephemeral makes a fresh one. SIGTERM drains and exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        from punchbridge.cli.service import serve
        from punchbridge.local import forward as forwarding
        from punchbridge.local.places import parse_place
        from punchbridge.local.target import check_protocol, parse_target

        positive(timeout=timeout)
        place = given_target(target)
        checked_target(place)
        parse_place(bind)
        check_protocol(protocol)

        carry = partial(forwarding.run, target=place, bind=bind, protocol=protocol, path=path, any_user=any_user)
        return serve(
            report, endpoint.configuration(), partial(_forward, report, parse_target(place), carry, protocol, timeout)
        )

    return run(program, report, verbose=bool(out.verbose))


async def _forward(
    report: Reporter,
    target: Target,
    carry: Callable[..., Awaitable[None]],
    protocol: str,
    timeout: float,  # noqa: ASYNC109 - of the first connection alone
    bridge: TrioBridge,
    _feed: TrioFeed,
) -> Exit:
    """Connects once, which shows a ticket and tells early what is wrong; then carries until cancelled."""
    import trio

    from punchbridge.cli.exits import Exit
    from punchbridge.errors import DialTimeout

    report.progress("connecting")
    with trio.move_on_after(timeout or float("inf")) as limit:
        report.path = (await bridge.connect(target)).path
    if limit.cancelled_caught:
        raise DialTimeout(f"no connection to {target.text} within {timeout:g} s; is the other side running?")
    report.progress(None)
    if target.secret is None:  # else it has just been let in
        await _forewarn(report, target, protocol, bridge)
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(partial(carry, bridge.host))
        report.note("connect local clients to:")
        report.data(str(bound))
        report.detail["bind"] = str(bound)
    return Exit.DONE


async def _forewarn(report: Reporter, target: Target, protocol: str, bridge: TrioBridge) -> None:
    """Says early what the first call would say: that the peer offers nothing of the kind to this one. Both may change
    while this program runs, so it is no error. Raises NotAllowed when the peer closed the connection as one it denies.
    """
    import trio

    from punchbridge.errors import NotAllowed

    for connection in bridge.host.swarm.connections(target.peer):
        with trio.move_on_after(bridge.host.swarm.config.limits.identify.timeout):
            await connection.identified.wait()
        if connection.close_reason == NotAllowed.code:
            connection.check_alive()
        if connection.identify is None or protocol in connection.identify.protocols:
            return
    report.note(
        f"the peer offers nothing to {bridge.peer_id} yet: its server is not there, or its owner has to let this peer "
        "in (punchbridge allow, or a ticket from punchbridge invite)",
        "warn",
    )
