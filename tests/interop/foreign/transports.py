"""The rows of the published suites' transport tests: our entry point under their contract, each kind at the far end.

The row is the suite's runner: it sets the environment, keeps Redis, and reads what the dialer prints and how it ends.
What another kind does at the far end it does by the orders of the other groups; `ours` is the entry point at both ends.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import trio
from contract.resp import Client, Value, texts

from foreign.build import REPOSITORY
from foreign.cases import Case
from foreign.peer import QUIC, TCP, Pool, transport_of

SUITES = ("unified-testing", "test-plans")
OTHERS = ("rust", "go")
KEY = "a5b50d5e"
SECONDS = 60
"""For one side; a dial takes less than one."""
_UNIFIED = re.compile(r"latency:\n  handshake_plus_one_rtt: ([\d.]+)\n  ping_rtt: ([\d.]+)\n  unit: ms\n")


class Store:
    """A Redis of its own, on loopback."""

    def __init__(self, stack: ExitStack) -> None:
        argv = [sys.executable, "-m", "contract.store", "127.0.0.1", "0"]
        store = stack.enter_context(subprocess.Popen(argv, env=_environment({}), stdout=subprocess.PIPE, text=True))
        stack.callback(store.kill)
        assert store.stdout is not None
        self.place = store.stdout.readline().strip()

    def ask(self, *words: str) -> Value:
        async def once() -> Value:
            host, _, port = self.place.partition(":")
            with trio.fail_after(SECONDS):
                async with Client.open(host, int(port)) as client:
                    while (found := await client.ask(*words)) is None:  # noqa: ASYNC110 - Redis tells nobody
                        await trio.sleep(0.05)
                    return found

        return trio.run(once)

    def listener(self, suite: str) -> str:
        """The address that a listener of ours has told."""
        if suite == "test-plans":
            return texts(self.ask("BLPOP", "listenerAddr", "0"))[1]
        return str(self.ask("GET", f"{KEY}_listener_multiaddr"))

    def tell(self, suite: str, addr: str) -> None:
        """Plays a listener's part."""
        words = ("RPUSH", "listenerAddr", addr) if suite == "test-plans" else ("SET", f"{KEY}_listener_multiaddr", addr)
        self.ask(*words)


def _environment(given: dict[str, str]) -> dict[str, str]:
    paths = [REPOSITORY / "tests" / "interop", REPOSITORY / "src"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONWARNINGS": "ignore", **given}


def environment(suite: str, transport: str, dialer: bool, redis: str) -> dict[str, str]:
    """Names and values as the suites' runners set them."""
    flag = str(dialer).lower()
    alone = transport == QUIC
    if suite == "test-plans":
        stack = {} if alone else {"security": "noise", "muxer": "yamux"}
        return {"transport": transport, "is_dialer": flag, "ip": "0.0.0.0", "redis_addr": redis, **stack}
    stack = {} if alone else {"SECURE_CHANNEL": "noise", "MUXER": "yamux"}
    common = {"IS_DIALER": flag, "REDIS_ADDR": redis, "TEST_KEY": KEY, "TRANSPORT": transport, "DEBUG": "false"}
    return {**common, **stack, "LISTENER_IP": "0.0.0.0"}


def read_back(suite: str, stdout: str) -> tuple[float, float]:
    """(handshake and one round trip, one round trip) in milliseconds, as the suite's runner reads them."""
    if suite == "test-plans":
        found = json.loads(stdout)
        return float(found["handshakePlusOneRTTMillis"]), float(found["pingRTTMilllis"])
    match = _UNIFIED.fullmatch(stdout)
    assert match is not None, f"printed {stdout!r}"
    return float(match[1]), float(match[2])


def _entry(stack: ExitStack, env: dict[str, str]) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "contract.transports"]
    pipe = subprocess.PIPE
    made = stack.enter_context(subprocess.Popen(argv, env=_environment(env), stdout=pipe, stderr=pipe, text=True))
    stack.callback(made.kill)
    return made


def _row(suite: str, transport: str, first: str, second: str, shared: Pool) -> str:
    pool = shared.over(transport)
    with ExitStack() as stack:
        store = Store(stack)
        listener = None
        if second == "ours":
            listener = _entry(stack, environment(suite, transport, False, store.place))
        else:
            store.tell(suite, pool.get(second, "acceptor").addr)
        if first == "ours":
            dialer = _entry(stack, environment(suite, transport, True, store.place))
            stdout, stderr = dialer.communicate(timeout=SECONDS)
            assert dialer.returncode == 0, f"the dialer ended with {dialer.returncode}: {stderr[-500:]}"
            both, ping = read_back(suite, stdout)
            assert 0 < ping < both, stdout
            note = f"handshake and one round trip {both:.1f} ms"
        else:
            addr = store.listener(suite)
            assert transport_of(addr) == transport, f"the listener told {addr}"
            peer, target = pool.get(first, "dialer"), addr.rpartition("/")[2]
            peer.ask("dial", addr=addr)
            assert len(peer.ask("ping", peer=target, count=1)["ms"]) == 1
            note = ""
        if listener is not None:
            assert listener.poll() is None, f"the listener ended with {listener.returncode}"
            listener.kill()
            stdout, _ = listener.communicate(timeout=SECONDS)
            assert not stdout, f"the listener wrote {stdout!r}"
        return note


def cases() -> Iterator[Case]:
    pairs = [("ours", "ours"), *(pair for other in OTHERS for pair in (("ours", other), (other, "ours")))]
    for suite in SUITES:
        for transport in (TCP, QUIC):
            for first, second in pairs:
                run = partial(_row, suite, transport, first, second)
                kinds = tuple(dict.fromkeys((first, second)))
                title = f"{suite}, {transport}"
                yield Case("transport suites", title, f"{first} dials {second}", kinds, run, transport=transport)
