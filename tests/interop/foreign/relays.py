"""The relay rows: relay, listener and dialer of every kind, over loopback, each of TCP and QUIC.

Relays run without limits, except where a row is about limits. Combinations without ours are a group of their own: what
fails there is nothing of ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

from foreign.base import named, until
from foreign.build import unavailable
from foreign.cases import Case, Known
from foreign.peer import QUIC, TCP, Peer, PeerFailed, Pool

CHURN = 5
PY_NOTICED = 1.0
"""Seconds after which py-libp2p's relay has noticed the end of a circuit; see NEWEST_CLOSED."""
NOTICED = 10.0
"""Seconds after which a listener has noticed the end of a circuit that its relay cut."""
CUT_BYTES = 128 * 1024
CUT_SECONDS = 3
IDLE_SECONDS = 3 * CUT_SECONDS
"""An idle circuit has ended long before."""
TIGHT = ("-limit-bytes", str(CUT_BYTES))
SHORT = ("-limit-seconds", str(CUT_SECONDS))


def reservation(pool: Pool, relay: Peer, listener: Peer) -> str:
    """The listener's circuit address; asked for once."""
    key = ("reservation", relay.id, listener.id)
    if key not in pool.memory:
        pool.memory[key] = listener.ask("reserve", addr=relay.addr)
    return f"{relay.addr}/p2p-circuit/p2p/{listener.id}"


def told(pool: Pool, relay: Peer, listener: Peer, name: str) -> int | None:
    """A limit that came with the reservation; None where the listener's library keeps it to itself."""
    answer = pool.memory["reservation", relay.id, listener.id]
    return answer.get(name)  # type: ignore[no-any-return]


def relay_for(pool: Pool, r: str, flags: Sequence[str], listener: str, d: str) -> Peer:
    """py-libp2p's relay mixes up circuits of one peer, see NEWEST_CLOSED: where several are open, each has its own."""
    alone = r == "py" and flags is not TIGHT
    return pool.get(r, f"relay for {listener} and {d}" if alone else "relay", "-relay", *flags)


def leave(dialer: Peer, listener: Peer) -> None:
    """The dialer has no connection to the listener."""
    if dialer.ask("conns", peer=listener.id)["conns"]:
        dialer.ask("close", peer=listener.id)
    until(lambda: not dialer.ask("conns", peer=listener.id)["conns"], "a closed connection is still there")


def circuit(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> None:
    """A circuit from dialer to listener through this relay and no other."""
    key, now = ("circuit", listener.id, dialer.id), relay.id
    if pool.memory.get(key) == now and dialer.ask("conns", peer=listener.id)["conns"]:
        return
    pool.memory.pop(key, None)
    # From both ends: not every relay passes the end of a circuit on, and keepalive takes a minute.
    leave(dialer, listener)
    leave(listener, dialer)
    for one, other in ((dialer, listener), (listener, dialer)):
        one.ask("forget", peer=other.id)  # what an identify over another circuit said
    dialer.ask("dial", addr=reservation(pool, relay, listener))
    until(lambda: listener.ask("conns", peer=dialer.id)["conns"], f"{listener.kind} did not see the circuit")
    taken = [conn["remote"] for conn in dialer.ask("conns", peer=listener.id)["conns"]]
    assert all(relay.id in addr for addr in taken), f"{dialer.kind} went another way: {taken}"
    pool.memory[key] = now


Row = Callable[[Pool, Peer, Peer, Peer], str]


def reserve_and_dial(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    circuit(pool, relay, listener, dialer)
    for one, other in ((dialer, listener), (listener, dialer)):
        conns = one.ask("conns", peer=other.id)["conns"]
        assert all(conn["relay"] for conn in conns), conns
    return ""


def echo(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    circuit(pool, relay, listener, dialer)
    for one, other in ((dialer, listener), (listener, dialer)):
        got = one.ask("echo", peer=other.id, size=1_000_000)
        assert got["same"], got
    return ""


def ping(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    circuit(pool, relay, listener, dialer)
    for one, other in ((dialer, listener), (listener, dialer)):
        assert len(one.ask("ping", peer=other.id, count=2)["ms"]) == 2
    return ""


def identify(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    circuit(pool, relay, listener, dialer)
    for one, other in ((dialer, listener), (listener, dialer)):
        known = one.ask("identify", peer=other.id)
        assert "/interop/echo/1.0.0" in known["protocols"], known
        assert not _is_socket(str(known.get("observed", "")), relay), known["observed"]
    return ""


def _is_socket(observed: str, relay: Peer) -> bool:
    """The relay's own socket address told as the observed one (I2 of docs/wire-rules.md)."""
    return observed == relay.addr.split("/p2p/")[0]


NEWEST_CLOSED = (
    "with 1 s between two circuits: py-libp2p's relay keeps one entry for each peer (0.8.1, "
    "CircuitV2Protocol._active_relays), and when a circuit ends, which it notices 0.6 s late, it closes the newest of "
    "that dialer"
)
"""Seen in a trace of its relay: the end of circuit 1 closed the source stream of circuit 7."""


def churn(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    """A further circuit each time while the one before ends."""
    circuit(pool, relay, listener, dialer)
    pool.memory.pop(("circuit", listener.id, dialer.id))
    for _ in range(CHURN):
        leave(dialer, listener)
        if relay.kind == "py":
            time.sleep(PY_NOTICED)
        dialer.ask("dial", addr=reservation(pool, relay, listener))
        assert dialer.ask("echo", peer=listener.id, size=1000)["same"]
    pool.memory["circuit", listener.id, dialer.id] = relay.id
    return NEWEST_CLOSED if relay.kind == "py" else ""


UNNOTICED = (
    "cut for the dialer; py-libp2p as a listener keeps a circuit when its reset meets a window update of its own "
    "(0.8.1: 'Unexpected error during window update' in its log)"
)


def data_limit(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    """The listener learns the limit where its library tells, and the circuit is cut beyond it, for both."""
    circuit(pool, relay, listener, dialer)
    limit = told(pool, relay, listener, "limit_bytes")
    assert limit in (CUT_BYTES, None), f"the limit was told as {limit}"
    assert dialer.ask("echo", peer=listener.id, size=10_000)["same"]
    pool.memory.pop(("circuit", listener.id, dialer.id))
    try:
        through = dialer.ask("echo", peer=listener.id, size=4 * CUT_BYTES)["same"]
    except PeerFailed:
        through = False
    leave(dialer, listener)
    assert not through, "four times the limit went through"
    if listener.kind == "py":
        return UNNOTICED
    kept = f"{listener.kind} still has the circuit that was cut"
    until(lambda: not listener.ask("conns", peer=dialer.id)["conns"], kept, NOTICED)
    return ""


def time_limit(pool: Pool, relay: Peer, listener: Peer, dialer: Peer) -> str:
    """A circuit ends for both when its time is over, idle or not."""
    lived = pool.keep(("lived", relay.kind), lambda: _lives(pool, relay.kind), lambda _: None)[
        listener.kind, dialer.kind
    ]
    assert not isinstance(lived, str), lived
    assert lived > CUT_SECONDS / 2, f"the circuit ended after {lived:.1f} s"
    notes = [UNNOTICED] if listener.kind == "py" else []
    if relay.kind == "py":
        return "; ".join([*notes, UNTIMED])
    assert lived < IDLE_SECONDS, f"the circuit ended only with the first bytes after {IDLE_SECONDS} s"
    limit = told(pool, relay, listener, "limit_seconds")
    if limit not in (CUT_SECONDS, None):
        notes.append(f"cut after {CUT_SECONDS} s, though it told a limit of {limit} s")
    return "; ".join(notes)


LIMITED = "listener behind limits"
"""One listener for all rows would have to hold more reservations than our 16."""
UNTIMED = "cut with the first bytes after it: py-libp2p's relay looks at the time only then (0.8.1, _relay_data)"


def _lives(pool: Pool, r: str) -> dict[tuple[str, str], float | str]:
    """How long each pair's circuit lives, in seconds, or what went wrong; all pairs at once, for it takes time. None
    carries payload until IDLE_SECONDS, then each that is left does."""
    kinds = [kind for kind in SPEAKERS[pool.transport] if unavailable(kind) is None]
    pairs = list(product([pool.get(k, LIMITED) for k in kinds], [pool.get(k, "dialer") for k in kinds]))
    relays = [relay_for(pool, r, SHORT, listener.kind, dialer.kind) for listener, dialer in pairs]
    began: dict[tuple[Peer, Peer], float] = {}
    found: dict[tuple[str, str], float | str] = {}
    for relay, (listener, dialer) in zip(relays, pairs, strict=True):
        try:
            circuit(pool, relay, listener, dialer)
            began[listener, dialer] = time.monotonic()
        except (AssertionError, PeerFailed) as problem:
            found[listener.kind, dialer.kind] = str(problem)
    last = max(began.values(), default=0.0)
    _ends(began, found, last + IDLE_SECONDS)
    for listener, dialer in began:
        dialer.start("echo", peer=listener.id, size=1)
    _ends(began, found, last + 2 * IDLE_SECONDS)
    return found | {(listener.kind, dialer.kind): "the circuit outlived its limit" for listener, dialer in began}


def _ends(began: dict[tuple[Peer, Peer], float], found: dict[tuple[str, str], float | str], deadline: float) -> None:
    """Moves those that end before the deadline from `began` to `found`."""
    while began and time.monotonic() < deadline:
        for pair in list(began):
            listener, dialer = pair
            if dialer.ask("conns", peer=listener.id)["conns"]:
                continue
            if listener.kind == "py":  # see UNNOTICED
                leave(listener, dialer)
            elif listener.ask("conns", peer=dialer.id)["conns"]:
                continue
            found[listener.kind, dialer.kind] = time.monotonic() - began.pop(pair)
        time.sleep(0.05)


SPEAKERS = {TCP: ("ours", "rust", "go", "js", "py"), QUIC: ("ours", "rust", "go")}
"""Who has a place in these rows, by the transport that all three use."""
ROWS: tuple[tuple[str, Row, Sequence[str]], ...] = (
    ("reserve, dial through", reserve_and_dial, ()),
    ("identify", identify, ()),
    ("ping", ping, ()),
    ("echo of 1 MB", echo, ()),
    ("churn", churn, ()),
    ("data limit", data_limit, TIGHT),
    ("duration limit", time_limit, SHORT),
)
"""(title, row, flags of its relay)."""


@dataclass(frozen=True)
class Rule:
    """Where a known failure shows: in this row, for combinations of this pattern."""

    row: str
    who: str
    known: Known


_DISCARDED = Known(
    "js-libp2p 3.3.11 discards an identify whose observed address on a circuit begins with /p2p "
    "(AddressManager.addObservedAddr lets getNetConfig throw)",
    "js: Error: no identify",
)
RULES = (
    Rule("identify", "js → * → rust", _DISCARDED),
    Rule("identify", "js → * → py", _DISCARDED),
    Rule("identify", "py → * → js", _DISCARDED),
)


def known(row: str, who: str) -> Known | None:
    return next((rule.known for rule in RULES if rule.row == row and fnmatchcase(who, rule.who)), None)


def group(name: str, *kinds: str) -> str:
    return name if "ours" in kinds else f"{name} without ours"


def _case(transport: str, title: str, row: Row, flags: Sequence[str], r: str, listener: str, d: str) -> Case:
    def run(shared: Pool) -> str:
        pool = shared.over(transport)
        there = pool.get(listener, LIMITED if flags else "listener")
        return row(pool, relay_for(pool, r, flags, listener, d), there, pool.get(d, "dialer"))

    who, kinds = f"{d} → {r} → {listener}", tuple({r, listener, d})
    return Case(_group(transport, r, listener, d), title, who, kinds, run, known(title, who), transport=transport)


def _group(transport: str, *kinds: str) -> str:
    return named(group("relay", *kinds), transport)


def cases(transport: str) -> Iterator[Case]:
    """Over another transport than TCP only those with ours: what the others do among themselves is known from there."""
    kinds = SPEAKERS[transport]
    for r in kinds:
        ends = [pair for pair in product(kinds, repeat=2) if transport == TCP or "ours" in (r, *pair)]
        for listener, d in ends:
            for title, row, flags in ROWS:
                if row is not time_limit:
                    yield _case(transport, title, row, flags, r, listener, d)
        for listener, d in ends:
            yield _case(transport, "duration limit", time_limit, SHORT, r, listener, d)
