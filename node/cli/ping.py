"""`punchbridge ping`: round trips to a peer, each with its path; stops at the first direct one when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from .options import NETWORK, Endpoint, Output, checked_target, flag, positive

if TYPE_CHECKING:
    from bridge.rpc.trio_api import TrioBridge
    from bridge.telemetry.exits import Exit
    from bridge.telemetry.report import Reporter

    from .trio_service import TrioFeed

ENDPOINT: Final = Endpoint()
OUTPUT_FLAGS: Final = Output()


def ping(
    target: Annotated[str, Parameter(help="Circuit or direct multiaddr of the peer, ending in /p2p/ID.")],
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
    endpoint: Endpoint = ENDPOINT,
    out: Output = OUTPUT_FLAGS,
) -> int:
    """Measure round trips to a peer; each line names the path."""
    from bridge.telemetry.report import Reporter, run, set_up_logging

    report = Reporter(json=out.json, quiet=out.quiet)
    set_up_logging(verbose=out.verbose)

    def program() -> int:
        from bridge.errors import ConfigError

        from .trio_service import serve

        positive(count=count, interval=interval)
        if timeout <= 0:
            raise ConfigError(f"--timeout must be above 0: {timeout:g}")
        if until_direct and endpoint.no_p2p:
            raise ConfigError("--until-direct and --no-p2p exclude each other; leave one out")
        checked_target(target)

        async def work(bridge: TrioBridge, feed: TrioFeed) -> Exit:
            wanted = None if until_direct or count == 0 else count
            return await _ping(bridge, feed, report, target, wanted, interval, timeout, until_direct)

        return serve(report, endpoint, work, key=endpoint.key)

    return run(program, report, verbose=bool(out.verbose))


async def _ping(
    bridge: TrioBridge,
    feed: TrioFeed,
    report: Reporter,
    target: str,
    count: int | None,
    interval: float,
    seconds: float,
    until_direct: bool,
) -> Exit:
    import trio

    from bridge.errors import BridgeError, DialTimeout, DirectRequired
    from bridge.events import PingResult
    from bridge.rpc.target import parse_target
    from bridge.telemetry.console import spot
    from bridge.telemetry.exits import Exit

    deadline = trio.current_time() + seconds
    report.progress("connecting")
    with trio.move_on_at(deadline) as limit:
        await bridge.connect(target)
    report.progress(None)
    if limit.cancelled_caught:
        raise DialTimeout(f"no connection to {target} within {seconds:g} s; is the other side running?")
    peer = parse_target(target).peer
    times: list[float] = []
    sent = 0
    while count is None or sent < count:
        if sent:
            await trio.sleep(interval)
        if until_direct and trio.current_time() >= deadline:
            code = _verdict(feed)
            raise DirectRequired(f"no direct path within {seconds:g} s: {code}; see docs/troubleshooting.md", code)
        sent += 1
        connection = bridge.host.swarm.best(peer)
        rtt: float | None = None
        try:
            if connection is None:
                await bridge.connect(target)
                connection = bridge.host.swarm.best(peer)
                assert connection is not None
            async for rtt in bridge.host.ping.ping(connection, 1):
                times.append(rtt)
        except BridgeError as problem:
            report.note(f"no answer: {problem}", "warn")
        if connection is None:
            continue
        report.path = connection.path
        took = None if rtt is None else 1000 * rtt
        remote = str(connection.remote)
        report.emit(PingResult(peer=str(peer), count=sent, path=connection.path, remote=remote, rtt_ms=took))
        report.data(f"{connection.path} {spot(remote)} " + ("lost" if took is None else f"{took:.1f} ms"))
        if until_direct and connection.path == "direct" and rtt is not None:
            break
    report.detail.update(sent=sent, received=len(times))
    if not times:
        raise DialTimeout(f"no answer to {sent} pings")
    ordered = sorted(1000 * one for one in times)
    report.detail.update(min_ms=ordered[0], median_ms=ordered[len(ordered) // 2], max_ms=ordered[-1])
    return Exit.DONE


def _verdict(feed: TrioFeed) -> str:
    """The code of the last punch that failed, TIMEOUT when none ended."""
    from bridge.events import P2pFallback, PunchFailed

    return next((one.code for one in reversed(feed.drain()) if isinstance(one, (PunchFailed, P2pFallback))), "TIMEOUT")
