"""Both published contracts as values: what the environment says, the meeting place in Redis, the printed result.

`unified-testing` is hole-punch of github.com/libp2p/unified-testing, `test-plans` is hole-punch-interop of
github.com/libp2p/test-plans. Knows no libp2p.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import trio

from contract.resp import Client, RespError, texts

FORMS: Final = {"tcp": "/ip4/{}/tcp/0", "quic-v1": "/ip4/{}/udp/0/quic-v1"}
"""Where one listens, of an IP, by the suites' name of the transport."""
NEEDS: Final[dict[str, dict[str, str]]] = {"tcp": {"secure": "noise", "muxer": "yamux"}, "quic-v1": {}}
"""What else a transport needs; QUIC has its own of both, and the suites name none then."""

Suite = Literal["unified-testing", "test-plans"]
Role = Literal["relay", "listener", "dialer"]

SECONDS: Final[Mapping[Suite, float]] = {"unified-testing": 180.0, "test-plans": 60.0}
"""After which each suite's runner ends everything."""
POLL: Final = 0.1
"""Seconds between two questions for a key that is not there yet (unified-testing has no other way)."""
RELAYS: Final = {"tcp": "RELAY_TCP_ADDRESS", "quic-v1": "RELAY_QUIC_ADDRESS"}
LISTENER: Final = "LISTEN_CLIENT_PEER_ID"


class Unusable(Exception):
    """The environment asks for something that is not offered, or lacks something; the text says what."""


@dataclass(frozen=True)
class Route:
    """A net that is reached through a router; `device` is named by the suite's own start scripts."""

    net: str
    router: str
    device: str


@dataclass(frozen=True)
class Settings:
    """One role in one test. `ip`: the address to listen on, None where the contract names none; `wan`: where the
    other side must be seen; `transport`: the only one that is spoken, by the suites' name."""

    suite: Suite
    role: Role
    redis: tuple[str, int]
    key: str
    ip: str | None
    routes: tuple[Route, ...]
    wan: str | None
    transport: str = "tcp"

    @property
    def seconds(self) -> float:
        return SECONDS[self.suite]

    def place(self, ip: str) -> str:
        """The multiaddr to listen on, of an IP."""
        return FORMS[self.transport].format(ip)


def read(env: Mapping[str, str]) -> Settings:
    """What the environment asks for. Raises Unusable."""
    transport = env.get("TRANSPORT", "tcp")
    if transport not in FORMS:
        raise Unusable(f"TRANSPORT={transport}: one of {', '.join(FORMS)}")
    for name, what in (("SECURE_CHANNEL", "secure"), ("MUXER", "muxer")):
        offered = NEEDS[transport].get(what)
        if offered is not None and env.get(name, offered) != offered:
            raise Unusable(f"{name}={env[name]}: only {offered} is offered over {transport}")
    return replace(_test_plans(env) if "MODE" in env else _unified(env), transport=transport)


def redis_place(text: str) -> tuple[str, int]:
    """Host and port of Redis as the suites write them."""
    host, _, port = text.partition(":")
    return host, int(port or 6379)


def _test_plans(env: Mapping[str, str]) -> Settings:
    roles: dict[str, Role] = {"relay": "relay", "listen": "listener", "dial": "dialer"}
    mode = env["MODE"]
    if mode not in roles:
        raise Unusable(f"MODE={mode}: one of {', '.join(roles)}")
    redis = redis_place(env.get("REDIS_ADDR", "redis:6379"))
    # The relay is the runner's own program there; ours may be told which of its addresses is the WAN's.
    return Settings("test-plans", roles[mode], redis, "", env.get("RELAY_IP"), (), None)


def _unified(env: Mapping[str, str]) -> Settings:
    for name in ("REDIS_ADDR", "TEST_KEY", "TRANSPORT"):
        if name not in env:
            raise Unusable(f"{name} is not set")
    redis, key = redis_place(env["REDIS_ADDR"]), env["TEST_KEY"]
    if env.get("IS_RELAY") == "true" or ("RELAY_IP" in env and "IS_DIALER" not in env):
        pairs = (("DIALER_LAN_SUBNET", "DIALER_ROUTER_IP"), ("LISTENER_LAN_SUBNET", "LISTENER_ROUTER_IP"))
        routes = tuple(Route(env[net], env[via], "wan0") for net, via in pairs if net in env and via in env)
        return Settings("unified-testing", "relay", redis, key, env.get("RELAY_IP"), routes, None)
    if env.get("IS_DIALER") not in ("true", "false"):
        raise Unusable("IS_DIALER is neither true nor false")
    role: Role = "dialer" if env["IS_DIALER"] == "true" else "listener"
    ip = env.get(f"{role.upper()}_IP") or env.get("PEER_IP")
    wan, router = env.get("WAN_SUBNET"), env.get("WAN_ROUTER_IP") or env.get("ROUTER_IP")
    routes = (Route(wan, router, "lan0"),) if wan and router else ()
    return Settings("unified-testing", role, redis, key, ip, routes, wan)


def set_routes(settings: Settings) -> None:
    """What the start scripts of the published images do. Raises Unusable when `ip` refuses."""
    for route in settings.routes:
        words = ["ip", "route", "replace", route.net, "via", route.router, "dev", route.device]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unusable(f"{' '.join(words)}: {done.stderr.strip()}")


def own_ip(relay: str) -> str:
    """The address from which the relay's multiaddr is reached: a route look-up, nothing is sent. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((relay.split("/")[2], 9))
        return str(sock.getsockname()[0])


def expected_side(settings: Settings, remote: str) -> None:
    """Raises Unusable when a direct connection came about over another net than the suite's WAN."""
    if settings.wan is not None and ipaddress.ip_address(remote) not in ipaddress.ip_network(settings.wan):
        raise Unusable(f"the direct connection is with {remote}, outside of {settings.wan}")


class Meeting:
    """Where the three find each other."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._plans = settings.suite == "test-plans"
        self._key = settings.key
        self._relays = RELAYS[settings.transport]
        self._client = client

    async def tell_relay(self, addr: str) -> None:
        if self._plans:
            for _ in range(2):  # each client takes one away
                await self._client.ask("RPUSH", self._relays, addr)
        else:
            await self._client.ask("SET", f"{self._key}_relay_multiaddr", addr)

    async def relay(self) -> str:
        return await self._taken(self._relays) if self._plans else await self._polled("relay_multiaddr")

    async def tell_listener(self, peer: str) -> None:
        """Only once its reservation stands: the dialer dials at once."""
        if self._plans:
            await self._client.ask("RPUSH", LISTENER, peer)
        else:
            await self._client.ask("SET", f"{self._key}_listener_peer_id", peer)

    async def listener(self) -> str:
        return await self._taken(LISTENER) if self._plans else await self._polled("listener_peer_id")

    async def _taken(self, key: str) -> str:
        return texts(await self._client.ask("BLPOP", key, "0"))[1]

    async def _polled(self, what: str) -> str:
        while (found := await self._client.text("GET", f"{self._key}_{what}")) is None:  # noqa: ASYNC110
            await trio.sleep(POLL)
        return found


@asynccontextmanager
async def meeting(settings: Settings) -> AsyncIterator[Meeting]:
    """Waits until Redis answers: containers start in any order."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                client = await stack.enter_async_context(Client.open(*settings.redis))
                break
            except OSError as problem:
                log(f"no Redis at {settings.redis}: {problem}")
                await trio.sleep(POLL)
        yield Meeting(settings, client)


def result(suite: Suite, handshake: float, rtt: float) -> str:
    """What the dialer prints. `handshake`: seconds from the dial through the relay to the direct connection."""
    if suite == "test-plans":
        return json.dumps({"rtt_to_holepunched_peer_millis": round(rtt * 1000)})
    both, ping = (handshake + rtt) * 1000, rtt * 1000
    return f"latency:\n  handshake_plus_one_rtt: {both:.2f}\n  ping_rtt: {ping:.2f}\n  unit: ms"


def log(text: str) -> None:
    """Everything but the result goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[Settings], Awaitable[None]], failure: type[Exception]) -> int:
    """Plays this process's role until its end or, as dialer, its deadline. Returns the exit status."""

    async def play() -> None:
        with trio.fail_after(settings.seconds if settings.role == "dialer" else float("inf")):
            await main(settings)

    status = 0
    try:
        settings = read(os.environ)
        log(str(settings))
        set_routes(settings)
        trio.run(play)
    except* (Unusable, RespError, OSError, trio.BrokenResourceError, trio.TooSlowError, failure) as problems:
        log(f"failed: {problems.exceptions!r}")
        status = 1
    return status
