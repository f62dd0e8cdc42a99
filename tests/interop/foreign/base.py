"""The base rows: two peers connected over loopback, each dialling the other, through every stream protocol.

They are the same over TCP and over QUIC, but for the early muxer negotiation: QUIC has its own streams.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

from foreign.cases import Case, Known, NotOffered
from foreign.peer import ANY, QUIC, TCP, Peer, Pool, transport_of

MIB = 1024 * 1024
STREAMS = 100
WINDOWS = 40 * MIB
"""More than anybody's window for one stream (go: 16 MiB) and what lies in sockets and queues on the way."""

Row = Callable[[Peer, Peer], str]


def dial(dialer: Peer, acceptor: Peer) -> str:
    conns = dialer.ask("conns", peer=acceptor.id)["conns"]
    seen = acceptor.ask("conns", peer=dialer.id)["conns"]
    assert any(not one["relay"] and not one["inbound"] for one in conns), conns
    assert any(not one["relay"] and one["inbound"] for one in seen), seen
    taken = {transport_of(one["remote"]) for one in (*conns, *seen)}
    assert taken == {transport_of(acceptor.addr)}, f"connected over {taken}"
    return ""


def muxer(dialer: Peer, acceptor: Peer) -> str:
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        if one.kind in ("go", "js"):
            conns = one.ask("conns", peer=other.id)["conns"]
            assert any(conn["early_muxer"] for conn in conns), conns
            return f"early, as {one.kind} reports it"
    raise NotOffered("sends no muxer list in Noise; multistream-select is used")


def identify(dialer: Peer, acceptor: Peer) -> str:
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        known = one.ask("identify", peer=other.id)
        assert "/interop/echo/1.0.0" in known["protocols"], known
        assert "/ipfs/ping/1.0.0" in known["protocols"], known
        assert any(addr.split("/p2p/")[0] == other.addr.split("/p2p/")[0] for addr in known["listen"]), known
    return ""


def our_push(dialer: Peer, acceptor: Peer) -> str:
    """We listen on one more port; the other hears of it without asking."""
    ours, other = _sides(dialer, acceptor)
    return _push(ours, other)


def their_push(dialer: Peer, acceptor: Peer) -> str:
    ours, other = _sides(dialer, acceptor)
    return _push(other, ours)


def _push(changed: Peer, listener: Peer) -> str:
    addr = str(changed.ask("listen", addr=_another(changed))["addr"])
    assert _heard(listener, changed, addr), f"{listener.kind} did not hear of {changed.kind}'s new address"
    return ""


def _another(changed: Peer) -> str:
    """A further address to listen on. QUIC's port is named: for any port go takes the socket that it has already."""
    if transport_of(changed.addr) == TCP:
        return ANY[TCP]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return ANY[QUIC].replace("/udp/0/", f"/udp/{free.getsockname()[1]}/")


def _sides(dialer: Peer, acceptor: Peer) -> tuple[Peer, Peer]:
    """(ours, the other)."""
    return (dialer, acceptor) if dialer.kind == "ours" else (acceptor, dialer)


def _heard(listener: Peer, changed: Peer, addr: str) -> bool:
    try:
        until(lambda: addr in listener.ask("identify", peer=changed.id)["listen"], "")
    except AssertionError:
        return False
    return True


def until(ready: Callable[[], object], otherwise: str, seconds: float = 10.0) -> None:
    """Asks again each 0.1 s: peers answer questions, they cannot be waited for."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def ping(dialer: Peer, acceptor: Peer) -> str:
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        times = one.ask("ping", peer=other.id, count=3)["ms"]
        assert len(times) == 3, times
        assert all(0 < time < 5000 for time in times), times
    return ""


def echo(size: int) -> Row:
    def row(dialer: Peer, acceptor: Peer) -> str:
        for one, other in ((dialer, acceptor), (acceptor, dialer)):
            got = one.ask("echo", peer=other.id, size=size)
            assert got["same"], got
            assert got["bytes"] == size, got
        return ""

    return row


def half_close(dialer: Peer, acceptor: Peer) -> str:
    """The answer comes after the asking side has ended its half."""
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        assert one.ask("count", peer=other.id, size=300_000)["count"] == 300_000
    return ""


def our_reset(dialer: Peer, acceptor: Peer) -> str:
    """The other opens a stream that we reset."""
    ours, other = _sides(dialer, acceptor)
    return _reset(other, ours)


def their_reset(dialer: Peer, acceptor: Peer) -> str:
    ours, other = _sides(dialer, acceptor)
    if other.kind == "rust" and transport_of(other.addr) == QUIC:
        raise NotOffered("rust-libp2p resets no QUIC stream: one that is dropped is finished (quinn, SendStream::drop)")
    return _reset(ours, other)


def _reset(reader: Peer, resetter: Peer) -> str:
    seen = reader.ask("reset", peer=resetter.id)["seen"]
    assert seen == "reset", f"{reader.kind} saw {seen!r} when {resetter.kind} reset the stream"
    return ""


def many(dialer: Peer, acceptor: Peer) -> str:
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        good = one.ask("many", peer=other.id, count=STREAMS)["good"]
        assert good == STREAMS, f"{one.kind} to {other.kind}: {good} of {STREAMS}"
    return ""


def perf(dialer: Peer, acceptor: Peer) -> str:
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        for up, down in ((8 * MIB, 1), (1, 8 * MIB), (0, 0)):
            got = one.ask("perf", peer=other.id, up=up, down=down)
            assert got["down"] == down, got
    return ""


def slow(dialer: Peer, acceptor: Peer) -> str:
    """The reader sleeps: the writer must stop at the window, and nothing is lost afterwards."""
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        if _never_stops(other):
            continue
        got = one.ask("slow", peer=other.id, size=WINDOWS)
        assert got["count"] == WINDOWS, got
        assert got["first_second"] < WINDOWS, f"{other.kind} took all {WINDOWS} bytes before anyone read"
    if _never_stops(dialer) or _never_stops(acceptor):
        raise NotOffered("a QUIC stream of js-libp2p reads on while it is paused (libp2p-quic 2.1.1, sendPause)")
    return ""


def _never_stops(reader: Peer) -> bool:
    return reader.kind == "js" and transport_of(reader.addr) == QUIC


ROWS: tuple[tuple[str, Row], ...] = (
    ("dial and accept", dial),
    ("early muxer negotiation", muxer),
    ("identify", identify),
    ("our identify push", our_push),
    ("their identify push", their_push),
    ("ping", ping),
    ("echo of 5 B", echo(5)),
    ("echo of 64 KiB", echo(64 * 1024)),
    ("echo of 64 MiB", echo(64 * MIB)),
    ("half-close", half_close),
    ("our reset is seen as reset", our_reset),
    ("their reset is seen as reset", their_reset),
    (f"{STREAMS} streams at once", many),
    ("/perf/1.0.0", perf),
    ("a reader that stops", slow),
)


def _connected(pool: Pool, first: str, second: str) -> tuple[Peer, Peer]:
    """(dialer, acceptor) with exactly one dial between them."""
    dialer, acceptor = pool.get(first, "dialer"), pool.get(second, "acceptor")
    if not dialer.ask("conns", peer=acceptor.id)["conns"]:
        dialer.ask("dial", addr=acceptor.addr)
        until(lambda: acceptor.ask("conns", peer=dialer.id)["conns"], f"{second} did not see the connection")
    return dialer, acceptor


def named(group: str, transport: str) -> str:
    """The group of the same rows over another transport."""
    return group if transport == TCP else f"{group} over {transport}"


def _case(transport: str, title: str, row: Row, first: str, second: str) -> Case:
    def run(pool: Pool) -> str:
        return row(*_connected(pool.over(transport), first, second))

    kinds = tuple(dict.fromkeys((first, second)))
    other = second if first == "ours" else first
    known = KNOWN.get((transport, title, other))
    return Case(named("base", transport), title, f"{first} dials {second}", kinds, run, known, transport=transport)


KNOWN: dict[tuple[str, str, str], Known] = {
    (TCP, "our reset is seen as reset", "rust"): Known(
        "rust-yamux gives a reader whose stream was reset an end of stream (0.14.1, Stream::poll_read); "
        "only a write then fails",
        "rust saw 'end'",
    ),
    (QUIC, "our reset is seen as reset", "js"): Known(
        "js-libp2p takes the reset of a QUIC stream for its end (libp2p-quic 2.1.1, QuicStream.readFromStream)",
        "js saw 'end'",
    ),
    (TCP, "our reset is seen as reset", "py"): Known(
        "py-libp2p gives a reader whose stream was reset an end of stream", "py saw 'end'"
    ),
}
"""(transport, row, other kind): why it fails on their side."""


def cases(transport: str, others: tuple[str, ...]) -> Iterator[Case]:
    for other in others:
        for first, second in (("ours", other), (other, "ours")):
            for title, row in ROWS:
                if transport != QUIC or row is not muxer:
                    yield _case(transport, title, row, first, second)
