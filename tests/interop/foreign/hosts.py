"""The rows of `punchbridge.libp2p`: an application that runs a stock py-libp2p host has gRPC over that host's streams.

The other end is our own bridge, an application of the same kind, or another gRPC on another libp2p's streams. With the
first two a session carries it, so that it outlives the host's connection; the others know plain streams alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from foreign.cases import Case
from foreign.peer import Peer, Pool
from foreign.rpcs import NAMES, OTHERS, SIZES, call

GROUP = "grpc over a py-libp2p host"
MANY = 100
CUTS = 5
MOVED = 30.0
"""Seconds from a cut until the client tells of the next carrier, on a busy machine."""
SWITCHED = "session.switched"

Row = Callable[[Pool, Peer, Peer], str]


def unary(size: int) -> Row:
    def row(pool: Pool, client: Peer, server: Peer) -> str:
        return call(pool, client, server, size)

    return row


def many(_pool: Pool, client: Peer, server: Peer) -> str:
    got = client.ask("calls", addr=server.addr, count=MANY)
    assert got == {"good": MANY}, got
    return ""


def who(_pool: Pool, client: Peer, server: Peer) -> str:
    """The handler of an unmodified server is told which peer calls."""
    got = client.ask("who", addr=server.addr)
    assert got == {"peer": client.id, "path": "direct"}, got
    return ""


def one_session(_pool: Pool, client: Peer, server: Peer) -> str:
    """A channel's calls are carried by one session, which both ends tell of."""
    before = {peer: len(peer.find(SWITCHED)) for peer in (client, server)}
    client.ask("calls", addr=server.addr, count=MANY)
    opened: list[dict[str, Any]] = []
    for peer, other in ((client, server), (server, client)):
        opened.append(peer.wait(SWITCHED, count=before[peer] + 1))
        told = peer.find(SWITCHED)[before[peer] :]
        assert [(one["reason"], one["to"], one["peer"]) for one in told] == [("OPENED", "direct", other.id)], told
    assert opened[0]["session"] == opened[1]["session"], opened
    return ""


def cut(_pool: Pool, client: Peer, server: Peer) -> str:
    """A chat that sends and receives all the time, over each carrier, while its host's connection is cut."""
    before = len(client.find(SWITCHED))
    client.ask("talk", addr=server.addr)
    cutters = [(one, other) for one, other in ((client, server), (server, client)) if one.kind == "host"]
    for number in range(CUTS):
        client.wait(SWITCHED, timeout=MOVED, count=before + number + 1)
        client.ask("more")
        cutter, other = cutters[number % len(cutters)]
        cutter.ask("cut", peer=other.id)
    client.wait(SWITCHED, timeout=MOVED, count=before + CUTS + 1)
    client.ask("more")
    got = client.ask("enough")
    told = client.find(SWITCHED)[before:]
    assert len({one["session"] for one in told}) == 1, told
    assert [one["reason"] for one in told].count("OPENED") == 1, told
    assert not any(one["planned"] for one in told[1:]), told
    gaps = sorted(float(one["gap_ms"]) for one in told[1:])
    return f"{got['messages']} messages; without a carrier for {gaps[len(gaps) // 2]:.0f} ms (median)"


UNARY = tuple((f"unary of {text}, status, trailer, chat", unary(size)) for size, text in SIZES)
SESSION: tuple[tuple[str, Row], ...] = (
    ("the handler knows the peer", who),
    (f"{MANY} unary at once", many),
    ("one session carries them", one_session),
    (f"a chat while the connection is cut {CUTS} times", cut),
)
PAIRS = (("host", "rpc"), ("rpc", "host"), ("host", "host"))
"""(client, server): both know sessions."""


def _case(title: str, row: Row, client: str, server: str) -> Case:
    def run(pool: Pool) -> str:
        return row(pool, pool.get(client, "client"), pool.get(server, "server"))

    kinds = tuple(dict.fromkeys((client, server)))
    return Case(GROUP, title, f"{NAMES[client]} → {NAMES[server]}", kinds, run)


def cases() -> Iterator[Case]:
    for pair in (*PAIRS, *(pair for kind in OTHERS for pair in (("host", kind), (kind, "host")))):
        for title, row in (*UNARY, *(SESSION if pair in PAIRS else ())):
            yield _case(title, row, *pair)
