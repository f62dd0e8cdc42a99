"""The rows of relays between transports: one end of the circuit came to the relay over TCP, the other over QUIC.

A circuit is a stream on either; neither end knows what the other came over.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

from foreign.base import until
from foreign.cases import Case
from foreign.peer import ANY, QUIC, TCP, Peer, Pool, transport_of
from foreign.relays import SPEAKERS

SIZE = 1_000_000
ROWS = {"dialer over QUIC, listener over TCP": (QUIC, TCP), "dialer over TCP, listener over QUIC": (TCP, QUIC)}


def _at(relay: Peer, transport: str) -> str:
    return next(addr for addr in relay.addrs if transport_of(addr) == transport)


def _carried(dialled: str, listened: str, r: str, listener: str, d: str, pool: Pool) -> str:
    """A reservation over the one, a dial through the relay over the other, and bytes both ways."""
    relay = pool.get(r, "relay of both", "-relay", "-listen", ANY[TCP], "-listen", ANY[QUIC])
    there = pool.over(listened).get(listener, "listener")
    dialer = pool.over(dialled).get(d, "dialer")
    key = ("reservation", relay.id, there.id)
    if key not in pool.memory:
        pool.memory[key] = there.ask("reserve", addr=_at(relay, listened))
    for one, other in ((dialer, there), (there, dialer)):
        if one.ask("conns", peer=other.id)["conns"]:
            one.ask("close", peer=other.id)
        one.ask("forget", peer=other.id)
    until(lambda: not there.ask("conns", peer=dialer.id)["conns"], "a closed connection is still there")
    dialer.ask("dial", addr=f"{_at(relay, dialled)}/p2p-circuit/p2p/{there.id}")
    for one, other, transport in ((dialer, there, dialled), (there, dialer, listened)):
        conns = one.ask("conns", peer=other.id)["conns"]
        assert conns, f"{one.kind} has no connection"
        assert all(conn["relay"] for conn in conns), conns
        ways = {transport_of(conn["remote"]) for conn in one.ask("conns", peer=relay.id)["conns"]}
        assert transport in ways, f"{one.kind} has {ways} with the relay"
        got = one.ask("echo", peer=other.id, size=SIZE)
        assert got["same"], got
    return ""


def cases() -> Iterator[Case]:
    for r, listener, d in product(SPEAKERS[QUIC], repeat=3):
        if "ours" in (r, listener, d):
            for title, (dialled, listened) in ROWS.items():
                run = partial(_carried, dialled, listened, r, listener, d)
                kinds = tuple({r, listener, d})
                yield Case("relay between transports", title, f"{d} → {r} → {listener}", kinds, run, transport=QUIC)
