"""`punchbridge ping`: its flags, checked before anything starts. `pinger` does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from punchbridge.cli.options import (
    NETWORK,
    NetworkOptions,
    Output,
    checked_target,
    flag,
    given_target,
    positive,
    target_argument,
)

if TYPE_CHECKING:
    from punchbridge.api.trio import TrioBridge
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.service import TrioFeed

ENDPOINT: Final = NetworkOptions()
OUTPUT_FLAGS: Final = Output()


def ping(
    target: Annotated[str, target_argument("Ticket or multiaddr of the peer, ending in /p2p/ID.")],
    /,
    *,
    count: Annotated[int, flag("count", "Pings to send; 0: until stopped.", alias="-c", group=NETWORK)] = 4,
    interval: Annotated[float, flag("interval", "Seconds between two pings.", group=NETWORK)] = 1.0,
    until_direct: Annotated[
        bool,
        flag("until-direct", "Stop at the first direct round trip; code 4 when --timeout ends first.", group=NETWORK),
    ] = False,
    timeout: Annotated[
        float, flag("timeout", "Seconds to connect, and for --until-direct to become direct.", group=NETWORK)
    ] = 30.0,
    endpoint: NetworkOptions = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Measure round trips to a peer; each line names the path."""
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        from punchbridge.cli.pinger import Pinger, Plan
        from punchbridge.cli.service import serve
        from punchbridge.errors import ConfigError

        positive(count=count, interval=interval)
        if not timeout > 0:
            raise ConfigError(f"--timeout must be above 0: {timeout:g}")
        config = endpoint.configuration()
        if until_direct and not config.punch.enabled:
            raise ConfigError("--until-direct and --no-p2p exclude each other; leave one out")
        place = given_target(target)
        checked_target(place)

        plan = Plan(place, None if until_direct or count == 0 else count, interval, timeout, until_direct)

        async def work(bridge: TrioBridge, feed: TrioFeed) -> Exit:
            return await Pinger(bridge, feed, report, plan).run()

        return serve(report, config, work)

    return run(program, report, verbose=bool(out.verbose))
