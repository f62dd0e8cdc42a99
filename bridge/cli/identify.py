"""`punchbridge identify`: connects to an address and prints what the peer says about itself."""

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
    from punchbridge.cli.events import IdentifyResult
    from punchbridge.cli.exits import Exit
    from punchbridge.cli.service import TrioFeed

ENDPOINT: Final = NetworkOptions()
OUTPUT_FLAGS: Final = Output()


def identify(
    target: Annotated[str, target_argument("Ticket or multiaddr of the peer, ending in /p2p/ID.")],
    /,
    *,
    timeout: Annotated[float, flag("timeout", "Seconds for connection and answer.", group=NETWORK)] = 15.0,
    endpoint: NetworkOptions = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Ask a peer who it is and what it speaks."""
    from punchbridge.cli.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        import trio

        from punchbridge.cli.exits import Exit
        from punchbridge.cli.service import serve
        from punchbridge.errors import ConfigError, DialTimeout
        from punchbridge.local.target import parse_target

        positive(timeout=timeout)
        if timeout == 0:
            raise ConfigError("--timeout must be above 0")
        addr = given_target(target)
        checked_target(addr)

        async def work(bridge: TrioBridge, feed: TrioFeed) -> Exit:
            report.progress("connecting")
            with trio.move_on_after(timeout) as limit:
                result = await ask(bridge, addr)
            report.progress(None)
            if limit.cancelled_caught:
                raise DialTimeout(f"no answer from {parse_target(addr).text} within {timeout:g} s; is it running?")
            report.path = result.path
            report.emit(result)
            for name, value in result.as_dict().items():
                for item in value if isinstance(value, list) else [value]:
                    report.data(f"{name:<17}{'' if item is None else item}".rstrip())
            return Exit.DONE

        return serve(report, endpoint.configuration(), work)

    return run(program, report, verbose=bool(out.verbose))


async def ask(bridge: TrioBridge, addr: str) -> IdentifyResult:
    """Connects if need be, and waits for identify. Raises what `connect` raises, Unreachable when it says
    nothing, NotAllowed when it does not let us in."""
    from punchbridge.cli.events import IdentifyResult
    from punchbridge.errors import NotAllowed, Unreachable
    from punchbridge.identity import peer_text
    from punchbridge.local.target import parse_target

    await bridge.connect(addr)
    peer = parse_target(addr).peer
    connection = bridge.host.swarm.best(peer)
    said = None
    if connection is not None:
        await connection.identified.wait()
        said = connection.identify
        if said is None and connection.close_reason == NotAllowed.code:
            connection.check_alive()
    if connection is None or said is None:
        raise Unreachable(f"{peer_text(peer)} was connected, but did not answer identify; does it speak libp2p?")
    return IdentifyResult(
        peer=peer_text(peer),
        path=connection.path,
        remote=str(connection.remote),
        agent=said.agent,
        protocol_version=said.protocol_version,
        protocols=tuple(said.protocols),
        listen=tuple(str(one) for one in said.listen),
        observed=None if said.observed is None else str(said.observed),
        transport=connection.transport,
    )
