"""The relay rows of two: what one client asks of one relay, as far as it is refused or has to be asked again.

Each refusal is judged by the status that the client reports. Pairs without ours are a group of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product

from foreign.base import named
from foreign.cases import Case, Known, NotOffered
from foreign.peer import TCP, Peer, PeerFailed, Pool
from foreign.relays import SPEAKERS, circuit, group, leave, reservation

TTL = 90
"""Seconds of a brief reservation: go's AutoRelay looks each minute whether one ends soon."""
AFTER = 5.0
"""Seconds past a reservation's first end."""
STATUS = {
    200: ("reservation_refused", "code 200", "reservation refused."),
    201: ("resource_limit_exceeded", "code 201", "status 201", "resource limit exceeded"),
    204: ("no_reservation", "status 204", "no reservation for destination"),
}
"""How the libraries say a status, in lower case."""
FULL = {"ours": 200, "go": 200, "js": 200, "rust": 201, "py": 201}
"""What each relay answers when it has no slot left; the specification allows either."""

Row = Callable[[Pool, Peer, Peer], str]


def _refused(client: Peer, order: str, addr: str, status: int) -> str:
    try:
        client.ask(order, addr=addr)
    except PeerFailed as problem:
        said = str(problem)
    else:
        raise AssertionError("the relay granted it")
    assert any(word in said.lower() for word in STATUS[status]), f"no {status} in what it says: {said}"
    return ""


def no_reservation(pool: Pool, relay: Peer, client: Peer) -> str:
    """CONNECT to a peer without a reservation is refused."""
    stranger = pool.get(client.kind, "dialer")
    return _refused(client, "dial", f"{relay.addr}/p2p-circuit/p2p/{stranger.id}", 204)


def no_slot(pool: Pool, relay: Peer, client: Peer) -> str:
    """A relay with one slot refuses the second reservation."""
    small = pool.get(relay.kind, "small relay", "-relay", "-reservations", "1")
    reservation(pool, small, pool.get(relay.kind, "listener"))
    _refused(client, "reserve", small.addr, FULL[relay.kind])
    return str(FULL[relay.kind])


def no_circuit(pool: Pool, relay: Peer, client: Peer) -> str:
    """A relay with one circuit refuses the second CONNECT."""
    if relay.kind == "js":
        raise NotOffered("js-libp2p's relay has no limit of circuits")
    narrow = pool.get(relay.kind, "narrow relay", "-relay", "-circuits", "1")
    listener, holder = pool.get(relay.kind, "listener"), pool.get(relay.kind, "dialer")
    addr = reservation(pool, narrow, listener)
    circuit(pool, narrow, listener, holder)
    return _refused(client, "dial", addr, 201)


def brief(pool: Pool, r: str, c: str) -> tuple[Peer, Peer, float]:
    """(a relay of brief reservations, a client that has one, when it got it); begun at the first call."""

    def begin() -> tuple[Peer, Peer, float]:
        relay = pool.get(r, "brief relay", "-relay", "-ttl", str(TTL))
        if c == "go":  # its circuit client renews nothing; AutoRelay does, at relays that it knows from the start
            client = pool.get(c, f"keeper at {r}", "-autorelay", relay.addr)
            client.wait("reservation", timeout=TTL / 2, relay=relay.id, renewal=False)  # it looks each 30 s
        else:
            client = pool.get(c, "keeper")
            client.ask("reserve", addr=relay.addr)
        return relay, client, time.monotonic()

    kept: tuple[Peer, Peer, float] = pool.keep(("brief", r, c), begin, lambda _: None)
    return kept


def renewal(pool: Pool, relay: Peer, client: Peer) -> str:
    """The client renews before the end, and can be dialled through the relay after it."""
    there, keeper, began = brief(pool, relay.kind, client.kind)
    keeper.wait("reservation", timeout=TTL, relay=there.id, renewal=True)
    time.sleep(max(0.0, began + TTL + AFTER - time.monotonic()))
    try:
        client.ask("dial", addr=f"{there.addr}/p2p-circuit/p2p/{keeper.id}")
    except PeerFailed as problem:
        if not any(word in str(problem).lower() for word in STATUS[204]):
            raise
        raise AssertionError("no reservation after its renewal") from problem
    assert client.ask("echo", peer=keeper.id, size=1000)["same"]
    leave(client, keeper)
    return ""


ROWS: tuple[tuple[str, Row], ...] = (
    ("no reservation: 204", no_reservation),
    ("no slot left: 200 or 201", no_slot),
    ("circuits used up: 201", no_circuit),
    ("renewal", renewal),
)
_NO_SUCH_STATUS = Known(
    "py-libp2p's relay answers 204 when a listener's circuits are used up (0.8.1, CircuitV2Protocol._handle_connect)",
    "no 201 in what it says",
)
_FORGOTTEN = Known(
    "js-libp2p's relay forgets a reservation at the end of its first renewal, whatever renewals came since "
    "(circuit-relay-v2 4.2.13, retimeable-signal 1.0.1), until it is asked again: by ours within 2 s",
    "no reservation after its renewal",
    sometimes=True,
)


def _case(transport: str, title: str, row: Row, r: str, c: str) -> Case:
    def run(shared: Pool) -> str:
        pool = shared.over(transport)
        return row(pool, pool.get(r, "relay", "-relay"), pool.get(c, "client"))

    who = f"{c} at the relay of {r}"
    known = _NO_SUCH_STATUS if row is no_circuit and r == "py" else _FORGOTTEN if row is renewal and r == "js" else None
    ahead = (lambda pool: brief(pool.over(transport), r, c)) if row is renewal else None
    name = named(group("relay requests", r, c), transport)
    return Case(name, title, who, tuple({r, c}), run, known, ahead=ahead, transport=transport)


def cases(transport: str) -> Iterator[Case]:
    """Over another transport than TCP only those with ours."""
    for title, row in ROWS:
        for r, c in product(SPEAKERS[transport], repeat=2):
            if transport == TCP or "ours" in (r, c):
                yield _case(transport, title, row, r, c)
