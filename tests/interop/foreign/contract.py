"""The rows of the published hole-punch suites: dialer, listener and relay of each kind under the suites' own contract.

A row passes when the dialer ends as the contract asks, and when what the suites do not look at holds as well: each
side listens on its LAN address alone, and the kernel shows one connection between them whose far end is, on both
sides, the other's router.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

from foreign.cases import Case, Known
from foreign.contractlab import BY_ADAPTER
from foreign.inlab import run_lab
from foreign.peer import Pool

KINDS = ("ours", "rust", "go")
TRANSPORTS = ("tcp", "quic-v1")
SUITES = ("unified-testing", "test-plans")
DIRECT_MS, TOLERANCE_MS = 200, 40
"""test-plans: two routers of 100 ms. Over the relay it would be 250; the suite itself only warns beyond 5 ms. A loaded
machine adds some."""
DIRECT_BYTES = 2000
"""A handshake and a ping take more."""

_LATE_GO = Known(
    "without delay go mostly fails to punch with go, over the relays of go and rust too: after its unilateral dial has "
    "timed out, its listener dials from another port than the one it announced (its event names no local address), and "
    "the other's router drops that",
    "the dialer ended with",
    sometimes=True,
)
KNOWN: dict[tuple[str, str], Known] = {("unified-testing", "go → ours → go"): _LATE_GO}
"""(suite, combination): why it fails on their side."""
KNOWN_SECONDS = 40.0
"""Three attempts of go; the suite's whole time would show no more."""

_UNIFIED = re.compile(r"latency:\n  handshake_plus_one_rtt: ([\d.]+)\n  ping_rtt: ([\d.]+)\n  unit: ms\n")


def printed(suite: str, stdout: str) -> str:
    """A note made of what the dialer printed, read as the suite's runner reads it."""
    if suite == "test-plans":
        millis = json.loads(stdout.splitlines()[-1])["rtt_to_holepunched_peer_millis"]
        assert abs(millis - DIRECT_MS) <= TOLERANCE_MS, f"round trip of {millis} ms, not {DIRECT_MS}"
        return f"round trip {millis} ms"
    match = _UNIFIED.fullmatch(stdout)
    assert match is not None, f"printed {stdout!r}"
    assert 0 < float(match[2]) <= float(match[1]), stdout
    return f"direct after {float(match[1]):.0f} ms, round trip {float(match[2]):.1f} ms"


def judged(suite: str, found: dict[str, Any]) -> str:
    """The note for the table. Raises AssertionError."""
    assert found["status"] == 0, f"the dialer ended with {found['status']}: {found.get('stderr')}"
    note = printed(suite, found["stdout"]["b"])
    assert not found["stdout"]["a"], "the listener wrote to stdout"
    assert not found["stdout"]["relay"], "the relay wrote to stdout"
    assert found["alive"] == ["relay", "a"], f"still running at the end: {found['alive']}"
    (a_lan, a_wan), (b_lan, b_wan) = found["expected"]["a"], found["expected"]["b"]
    assert found["bound"] == {"a": [a_lan], "b": [b_lan]}, found["bound"]
    assert found["sockets"], "no direct connection in the kernel's tables or counters"
    for pair in found["sockets"]:
        for side, local, remote in (("a", a_lan, b_wan), ("b", b_lan, a_wan)):
            ends = pair[side]["local"].rpartition(":")[0], pair[side]["remote"].rpartition(":")[0]
            assert ends == (local, remote), f"{ends} in place of {(local, remote)}"
    assert found["bytes"]["direct"] > DIRECT_BYTES, found["bytes"]
    return note


def _case(suite: str, transport: str, dialer: str, relay: str, listener: str) -> Case:
    who = f"{dialer} → {relay} → {listener}"
    known = KNOWN.get((suite, who)) if transport == "tcp" else None

    def run(pool: Pool) -> str:
        # go punches only towards addresses that it holds for public, and so do our peer's settings in other groups;
        # the suites' WAN is 10.0.0.0/8.
        public = {"go", f"ours{BY_ADAPTER}"} & {dialer, listener}
        head = 11 if public or suite == "test-plans" else 10
        order: dict[str, object] = {
            "suite": suite,
            "transport": transport,
            "dialer": dialer,
            "relay": relay,
            "listener": listener,
            "wan_head": head,
        }
        if known:
            order["seconds"] = KNOWN_SECONDS
        return judged(suite, run_lab(pool, "foreign.contractlab", **order))

    kinds = tuple(dict.fromkeys(kind.removesuffix(BY_ADAPTER) for kind in (dialer, relay, listener)))
    group = "hole-punch suites" if transport == "tcp" else f"hole-punch suites over {transport}"
    return Case(group, suite, who, kinds, run, known, lab=True)


def cases() -> Iterator[Case]:
    combinations = [one for one in product(KINDS, repeat=3) if "ours" in one]
    for transport, suite in product(TRANSPORTS, SUITES):
        for dialer, relay, listener in (*combinations, (f"ours{BY_ADAPTER}",) * 3):
            yield _case(suite, transport, dialer, relay, listener)
