"""`punchbridge listen`: its flags, checked before anything starts. `listener` does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from punchbridge.cli.callers import Callers
from punchbridge.cli.options import NETWORK, NetworkOptions, Output, default_key, flag, positive
from punchbridge_node.commands.flags import NodeFlags
from punchbridge_node.commands.lines import LINES

if TYPE_CHECKING:
    from punchbridge import Bridge
    from punchbridge_node.commands.service import Feed

CALLERS: Final = Callers()
ENDPOINT: Final = NetworkOptions()
NODE_FLAGS: Final = NodeFlags()
OUTPUT_FLAGS: Final = Output()

RelayFlag = Annotated[
    tuple[str, ...],
    flag("relay", "Relay to be reachable through, ending in /p2p/ID. Repeatable.", group=NETWORK),
]
TimeoutFlag = Annotated[
    float,
    flag("timeout", "Seconds for the first relay to accept; 0: keep trying for ever.", group=NETWORK),
]


def listen(
    *,
    relay: RelayFlag = (),
    timeout: TimeoutFlag = 30.0,
    callers: Callers = CALLERS,
    endpoint: NetworkOptions = ENDPOINT,
    node: NodeFlags = NODE_FLAGS,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Run the node, reachable through relays; prints the address to dial.

    Anybody may connect until a list names somebody (--allow, or `punchbridge allow` with the same --key); then only the
    listed may. Without --relay it is reachable directly only. The identity is kept in $XDG_STATE_HOME/punchbridge/key
    unless --key names another file. SIGTERM drains and exits 0.
    """
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet, lines=LINES)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        from punchbridge_node.commands.application import Tally, node_config
        from punchbridge_node.commands.listener import Listener
        from punchbridge_node.commands.service import serve

        positive(timeout=timeout)
        config = node.configuration(endpoint, relays=relay, key=default_key(), access=callers.flags)
        node_config(config.node)
        relays = tuple(str(one) for one in config.relays)
        tally = Tally()
        report.hub.subscribe(tally)

        async def work(bridge: Bridge, feed: Feed) -> int:
            return await Listener(report, relays, timeout, config.node).run(bridge, feed)

        try:
            return serve(report, config, work, reloads=True)
        finally:
            tally.into(report)

    from punchbridge_node.commands.application import NODE_ERRORS

    return run(program, report, more=NODE_ERRORS, verbose=bool(out.verbose))
