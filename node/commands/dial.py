"""`punchbridge dial`: its flags, checked before anything starts. `keeper` does the work."""

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
from punchbridge_node.commands.flags import NodeFlags
from punchbridge_node.commands.lines import LINES

if TYPE_CHECKING:
    from punchbridge import Bridge
    from punchbridge_node.commands.service import Feed

ENDPOINT: Final = NetworkOptions()
NODE_FLAGS: Final = NodeFlags()
OUTPUT_FLAGS: Final = Output()

TargetArgument = Annotated[
    str, target_argument("Ticket, or the multiaddr of the peer, ending in /p2p/ID, that the listener printed.")
]


def dial(
    target: TargetArgument,
    /,
    *,
    require_direct: Annotated[
        bool, flag("require-direct", "End with code 4 when no direct path stands within --timeout.", group=NETWORK)
    ] = False,
    timeout: Annotated[
        float,
        flag(
            "timeout", "Seconds to connect, to become direct if required, and to come back after a loss.", group=NETWORK
        ),
    ] = 30.0,
    endpoint: NetworkOptions = ENDPOINT,
    node: NodeFlags = NODE_FLAGS,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Run the node and connect it to a peer; goes direct when a punch succeeds.

    The identity is kept; --key names another, --ephemeral makes a fresh one. Runs until stopped, or for --duration
    seconds.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet, lines=LINES)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        from punchbridge.addresses import is_relayed
        from punchbridge.errors import ConfigError
        from punchbridge.local.target import parse_target
        from punchbridge_node.commands.application import Tally, node_config
        from punchbridge_node.commands.keeper import Goal, dial_peer
        from punchbridge_node.commands.service import serve

        positive(timeout=timeout)
        if timeout == 0:
            raise ConfigError("--timeout must be above 0")
        config = node.configuration(endpoint)
        node_config(config.node)
        if require_direct and not config.punch.enabled:
            raise ConfigError("--require-direct and --no-p2p exclude each other; leave one out")
        place = given_target(target)
        peer, addrs = checked_target(place), parse_target(place).addrs
        only_relayed = not config.punch.enabled and all(map(is_relayed, addrs))
        goal = Goal(place, peer, timeout, require_direct, only_relayed)
        tally = Tally()
        report.hub.subscribe(tally)

        async def work(bridge: Bridge, feed: Feed) -> int:
            return await dial_peer(bridge, feed, report, config.node, goal)

        try:
            return serve(report, config, work)
        finally:
            tally.into(report)

    from punchbridge_node.commands.application import NODE_ERRORS

    return run(program, report, more=NODE_ERRORS, verbose=bool(out.verbose))
