"""The entry points for the published hole-punch suites, without a lab: environments, meeting place, results."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parent))

from contract.resp import Client, Reader, RespError, Value, command, reply
from contract.settings import FORMS, Meeting, Route, Settings, Unusable, expected_side, read, result
from contract.store import Store, serve
from contract.transports import Part, printed
from contract.transports import read as read_transport
from foreign.contract import judged
from foreign.contractlab import Nets, environments
from foreign.transports import environment, read_back

INTEROP = Path(__file__).resolve().parent
UNIFIED = {"REDIS_ADDR": "hole-punch-redis:6379", "TEST_KEY": "a5b50d5e", "TRANSPORT": "tcp"}
NETS = Nets.of("rust-v0.56 x rust-v0.56", 10)


@asynccontextmanager
async def redis() -> AsyncIterator[tuple[str, int]]:
    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, partial(serve, Store()), 0, host="127.0.0.1")
        listeners = await nursery.start(serving)
        yield listeners[0].socket.getsockname()
        nursery.cancel_scope.cancel()


def test_dialer_of_unified_testing() -> None:
    env = {**UNIFIED, "IS_DIALER": "true", "DIALER_IP": "10.1.2.99", "WAN_SUBNET": "10.1.2.64/27"}
    got = read({**env, "WAN_ROUTER_IP": "10.1.2.98", "SECURE_CHANNEL": "noise", "MUXER": "yamux"})
    assert (got.suite, got.role, got.key, got.ip) == ("unified-testing", "dialer", "a5b50d5e", "10.1.2.99")
    assert got.redis == ("hole-punch-redis", 6379)
    assert got.routes == (Route("10.1.2.64/27", "10.1.2.98", "lan0"),)
    assert got.seconds == 180


def test_names_of_the_older_document() -> None:
    got = read({**UNIFIED, "IS_DIALER": "false", "PEER_IP": "10.1.2.131", "ROUTER_IP": "10.1.2.130"})
    assert (got.role, got.ip, got.routes) == ("listener", "10.1.2.131", ())
    assert read({**UNIFIED, "IS_RELAY": "true", "RELAY_IP": "10.1.2.68"}).role == "relay"


@pytest.mark.parametrize("transport", ["tcp", "quic-v1"])
@pytest.mark.parametrize("suite", ["unified-testing", "test-plans"])
def test_environments_of_the_lab_are_read_back(suite: str, transport: str) -> None:
    roles = {side: read(env) for side, env in environments(suite, NETS, transport).items()}
    assert {one.transport for one in roles.values()} == {transport}
    assert roles["a"].place("10.1.2.3") == FORMS[transport].format("10.1.2.3")
    assert {side: one.role for side, one in roles.items()} == {"relay": "relay", "a": "listener", "b": "dialer"}
    assert {one.suite for one in roles.values()} == {suite}
    assert roles["relay"].ip == NETS.wan(68)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"MODE": "watch", "TRANSPORT": "tcp"},
        {"MODE": "dial", "TRANSPORT": "quic"},
        {**UNIFIED, "IS_DIALER": "maybe"},
        {**UNIFIED, "IS_DIALER": "true", "MUXER": "mplex"},
        {**UNIFIED, "IS_DIALER": "true", "SECURE_CHANNEL": "tls"},
    ],
)
def test_what_is_not_offered_is_said(env: dict[str, str]) -> None:
    with pytest.raises(Unusable):
        read(env)


def test_the_entry_point_ends_with_1_when_it_cannot_be_used() -> None:
    argv = [sys.executable, "-m", "contract.ours"]
    env = {"MODE": "dial", "TRANSPORT": "quic", "PYTHONPATH": f"{INTEROP}:{INTEROP.parents[1] / 'src'}"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (1, "")
    assert "TRANSPORT=quic: one of tcp, quic-v1" in done.stderr


def test_a_direct_connection_over_another_net_is_refused() -> None:
    settings = Settings("unified-testing", "dialer", ("redis", 6379), "k", None, (), "10.1.2.64/27")
    expected_side(settings, "10.1.2.67")
    with pytest.raises(Unusable):
        expected_side(settings, "10.5.0.4")


def test_addresses_follow_the_key() -> None:
    """As the suite's run-single-test.sh computes them: two bytes of the key, each mod 224 plus 32."""
    nets = Nets("a5b50d5e", 10)
    assert (nets.wan(68), nets.lan(99)) == ("10.197.213.68", "10.197.213.99")
    assert Nets("ff00ffff", 11).wan(66) == "11.63.32.66"


@pytest.mark.parametrize("transport", ["tcp", "quic-v1"])
@pytest.mark.parametrize("suite", ["unified-testing", "test-plans"])
async def test_the_three_meet(suite: str, transport: str) -> None:
    env = environments(suite, NETS, transport)
    async with redis() as place, AsyncExitStack() as stack, trio.open_nursery() as nursery:
        clients = {}
        for side in env:
            client = await stack.enter_async_context(Client.open(*place))
            clients[side] = Meeting(read(env[side]), client)

        async def listen() -> None:
            assert await clients["a"].relay() == "/ip4/10.1.1.1/tcp/1/p2p/R"
            await clients["a"].tell_listener("L")

        async def dial() -> None:
            assert await clients["b"].relay() == "/ip4/10.1.1.1/tcp/1/p2p/R"
            assert await clients["b"].listener() == "L"

        nursery.start_soon(dial)
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        await clients["relay"].tell_relay("/ip4/10.1.1.1/tcp/1/p2p/R")


async def test_keys_and_lists() -> None:
    async with redis() as place, Client.open(*place) as one, Client.open(*place) as other:
        assert await one.ask("PING") == "PONG"
        assert await one.text("GET", "k") is None
        assert await one.ask("SET", "k", "grüße\r\n") == "OK"
        assert await other.text("GET", "k") == "grüße\r\n"
        assert await one.ask("RPUSH", "l", "1", "2") == 2
        assert await other.ask("BLPOP", "x", "l", "0") == ["l", "1"]
        assert await other.ask("LPOP", "l") == "2"
        assert await other.ask("BLPOP", "l", "0.01") is None
        with pytest.raises(RespError, match="unknown command"):
            await one.ask("FLUSHALL")
        assert await one.ask("PING") == "PONG"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_values_split_anywhere(size: int) -> None:
    value: Value = ["a", None, 7, ["", "b\r\nc"]]
    data = reply(value) + command("SET", "k", "v")
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(data), size):
                await sender.send_all(data[start : start + size])
            await sender.aclose()

        nursery.start_soon(send)
        reader = Reader(receiver)
        assert await reader.value() == value
        assert await reader.value() == ["SET", "k", "v"]
        with pytest.raises(EOFError):
            await reader.value()


@pytest.mark.parametrize("suite", ["unified-testing", "test-plans"])
@pytest.mark.parametrize("transport", ["tcp", "quic-v1"])
def test_a_transport_test_is_read_from_its_environment(suite: Any, transport: str) -> None:
    dialer, listener = (read_transport(environment(suite, transport, flag, "there:7")) for flag in (True, False))
    key = "a5b50d5e_listener_multiaddr" if suite == "unified-testing" else "listenerAddr"
    assert dialer == Part(suite, True, ("there", 7), key, transport, "0.0.0.0", 180.0)
    assert (listener.dialer, listener.transport) == (False, transport)
    assert read_back(suite, printed(suite, 0.03, 0.002) + "\n" * (suite == "unified-testing")) == pytest.approx((32, 2))


@pytest.mark.parametrize(
    "change",
    [
        {"TRANSPORT": "ws"},
        {"IS_DIALER": "maybe"},
        {"SECURE_CHANNEL": "tls"},
        {"MUXER": "mplex"},
        {"TEST_KEY": None},
    ],
)
def test_a_transport_test_that_is_not_offered_is_refused(change: dict[str, str | None]) -> None:
    given = environment("unified-testing", "tcp", True, "there:7") | change
    env = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(Unusable):
        read_transport(env)


FOUND: dict[str, Any] = {
    "status": 0,
    "stdout": {"relay": "", "a": "", "b": result("unified-testing", 0.3, 0.0012) + "\n"},
    "alive": ["relay", "a"],
    "expected": {"a": ["10.1.2.131", "10.1.2.67"], "b": ["10.1.2.99", "10.1.2.66"]},
    "bound": {"a": ["10.1.2.131"], "b": ["10.1.2.99"]},
    "sockets": [
        {
            "a": {"local": "10.1.2.131:1", "remote": "10.1.2.66:2"},
            "b": {"local": "10.1.2.99:2", "remote": "10.1.2.67:1"},
        }
    ],
    "bytes": {"relay": 9000, "direct": 5000},
}


def test_a_run_that_holds_passes() -> None:
    assert judged("unified-testing", FOUND) == "direct after 301 ms, round trip 1.2 ms"
    plans = {**FOUND, "stdout": {**FOUND["stdout"], "b": result("test-plans", 1.0, 0.2013) + "\n"}}
    assert json.loads(plans["stdout"]["b"]) == {"rtt_to_holepunched_peer_millis": 201}
    assert judged("test-plans", plans) == "round trip 201 ms"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), 1),
        (("status",), None),
        (("stdout", "b"), ""),
        (("stdout", "a"), "noise"),
        (("alive",), ["relay"]),
        (("bound", "a"), ["0.0.0.0"]),
        (("sockets",), []),
        (("sockets", 0, "b", "remote"), "10.5.0.4:1"),
        (("sockets", 0, "a", "local"), "10.5.0.4:1"),
        (("bytes", "direct"), 300),
    ],
)
def test_what_the_suites_do_not_look_at_fails(path: tuple[Any, ...], value: object) -> None:
    found = copy.deepcopy(FOUND)
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError):
        judged("unified-testing", found)


def test_a_relayed_round_trip_fails() -> None:
    found = {**FOUND, "stdout": {**FOUND["stdout"], "b": result("test-plans", 1.0, 0.25) + "\n"}}
    with pytest.raises(AssertionError, match="round trip"):
        judged("test-plans", found)
