"""Our entry point for the transport tests of the published suites: listen or dial, over TCP or QUIC, and ping.

`unified-testing` is transport of github.com/libp2p/unified-testing, `test-plans` is transport-interop of
github.com/libp2p/test-plans: `python -m contract.transports` with the environment of either. Logs go to stderr; the
dialer's stdout is the result, its exit status 0 only after a round trip. A listener runs until it is stopped, and ends
with 1 when the test's time is over.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import trio

from contract.resp import Client, RespError, texts
from contract.settings import FORMS, NEEDS, POLL, Suite, Unusable, log, redis_place, result
from punchbridge.access.policy import OPEN
from punchbridge.addresses import Multiaddr, parse, with_peer
from punchbridge.errors import BridgeError
from punchbridge.eventhub import EventHub
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity

SECONDS: Final = 180.0
LISTENER: Final = "listenerAddr"


@dataclass(frozen=True)
class Part:
    """One side of one test. `key`: the name in Redis under which the listener's address stands."""

    suite: Suite
    dialer: bool
    redis: tuple[str, int]
    key: str
    transport: str
    ip: str
    seconds: float


def read(env: Mapping[str, str]) -> Part:
    """What the environment asks for. Raises Unusable."""
    unified = "TRANSPORT" in env
    name = str.upper if unified else str.lower
    for wanted in (*("TRANSPORT", "IS_DIALER"), *(("REDIS_ADDR", "TEST_KEY") if unified else ())):
        if name(wanted) not in env:
            raise Unusable(f"{name(wanted)} is not set")
    transport, dialer = env[name("TRANSPORT")], env[name("IS_DIALER")]
    if transport not in FORMS:
        raise Unusable(f"{name('TRANSPORT')}={transport}: one of {', '.join(FORMS)}")
    if dialer not in ("true", "false"):
        raise Unusable(f"{name('IS_DIALER')}={dialer}: true or false")
    given = {
        "secure": env.get("SECURE_CHANNEL" if unified else "security", ""),
        "muxer": env.get(name("MUXER"), ""),
    }
    for what, offered in NEEDS[transport].items():
        if given[what] not in (offered, ""):
            raise Unusable(f"{what} {given[what]}: only {offered} is offered over {transport}")
    return Part(
        "unified-testing" if unified else "test-plans",
        dialer == "true",
        redis_place(env.get(name("REDIS_ADDR"), "redis:6379")),
        f"{env['TEST_KEY']}_listener_multiaddr" if unified else LISTENER,
        transport,
        env.get("LISTENER_IP" if unified else "ip") or "0.0.0.0",
        float(env.get("test_timeout_seconds", SECONDS)),
    )


async def tell(part: Part, redis: Client, addr: str) -> None:
    """The listener says where it is."""
    if part.suite == "unified-testing":
        await redis.ask("SET", part.key, addr)
    else:
        await redis.ask("RPUSH", part.key, addr)


async def told(part: Part, redis: Client) -> str:
    """Where the listener is, once it has said so."""
    if part.suite == "test-plans":
        return texts(await redis.ask("BLPOP", part.key, "0"))[1]
    while (found := await redis.text("GET", part.key)) is None:  # noqa: ASYNC110 - Redis tells nobody
        await trio.sleep(POLL)
    return found


def outside(addrs: tuple[Multiaddr, ...], redis: tuple[str, int]) -> Multiaddr:
    """The address at which others of the net of Redis reach us: a route look-up, nothing is sent. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(redis)
        mine = sock.getsockname()[0]
    return next((addr for addr in addrs if f"/ip4/{mine}/" in str(addr)), addrs[0])


def printed(suite: Suite, handshake: float, rtt: float) -> str:
    """What the dialer prints. `handshake`: seconds from the dial to the connection."""
    if suite == "unified-testing":
        return result(suite, handshake, rtt)
    both, ping = (handshake + rtt) * 1000, rtt * 1000
    return json.dumps({"handshakePlusOneRTTMillis": both, "pingRTTMilllis": ping})  # spelt so there


async def listen(part: Part, host: Host, redis: Client) -> None:
    found = await host.swarm.listen(parse(FORMS[part.transport].format(part.ip)))
    addr = with_peer(outside(found, part.redis), host.swarm.peer)
    log(f"listening on {addr}")
    await tell(part, redis, str(addr))
    await trio.sleep_forever()


async def dial(part: Part, host: Host, redis: Client) -> None:
    addr = await told(part, redis)
    began = time.perf_counter()
    connection = await host.swarm.dial(parse(addr))
    handshake = time.perf_counter() - began
    async with aclosing(host.ping.ping(connection, 1)) as pings:  # type: ignore[type-var]
        (rtt,) = [seconds async for seconds in pings]
    log(f"connected with {connection.remote}")
    print(printed(part.suite, handshake, rtt), flush=True)


async def main(part: Part) -> None:
    # The suites' nets are private address space.
    config = HostConfig(Identity.generate(), access=OPEN, allow_private=True, autonat=False)
    with trio.fail_after(part.seconds):
        async with open_host(config, EventHub()) as host, Client.open(*part.redis) as redis:
            await (dial if part.dialer else listen)(part, host, redis)


def run() -> int:
    """Plays this process's part to its end. Returns the exit status."""
    status = 0
    try:
        part = read(os.environ)
        log(str(part))
        trio.run(main, part)
    except* (Unusable, RespError, OSError, trio.BrokenResourceError, trio.TooSlowError, BridgeError) as problems:
        log(f"failed: {problems.exceptions!r}")
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(run())
