"""The grpc-js rows: grpc-js at either end or both, grpcio at the other, through `forward` and `expose`.

Neither end knows of the bridge. Over a direct path, and over a relay without caps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from foreign.cases import Case
from foreign.peer import Peer, Pool
from foreign.tunnel import NO_CAPS, Tunnel

MIB = 1 << 20
MANY = 1000
DETAILS = "\t\nwhitespace\r\nand Unicode, BMP ☺ and beyond 😈\t\n"
"""The message of the official case special_status_message, in kind."""

Row = Callable[[Peer, str], None]
"""Takes the client and the address of the tunnel; raises AssertionError."""


def unary(size: int) -> Row:
    def row(client: Peer, addr: str) -> None:
        got = client.ask("unary", addr=addr, size=size)
        assert got == {"code": "OK", "same": True, "initial": ["asked"], "trailer": [str(size)]}, got

    return row


def many(client: Peer, addr: str) -> None:
    got = client.ask("many", addr=addr, count=MANY)
    assert got == {"good": MANY}, got


def client_streaming(client: Peer, addr: str) -> None:
    got = client.ask("collect", addr=addr, count=64, size=65_536)
    assert got == {"total": 4 * MIB}, got


def server_streaming(client: Peer, addr: str) -> None:
    got = client.ask("spread", addr=addr, count=64, size=65_536)
    assert got == {"code": "OK", "good": 64}, got


def ping_pong(client: Peer, addr: str) -> None:
    got = client.ask("chat", addr=addr, count=100, size=10_000)
    assert got == {"code": "OK", "good": 100, "heard": 100}, got


def empty_stream(client: Peer, addr: str) -> None:
    got = client.ask("chat", addr=addr, count=0, size=0)
    assert got == {"code": "OK", "good": 0, "heard": 0}, got


CODES = (
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By number, from 1."""


def status(client: Peer, addr: str) -> None:
    for number, name in enumerate(CODES, 1):
        got = client.ask("status", addr=addr, code=number, details=f"{name} it is")
        assert got == {"code": name, "details": f"{name} it is", "trailer": [str(number)]}, got


def special_status(client: Peer, addr: str) -> None:
    got = client.ask("status", addr=addr, code=2, details=DETAILS)
    assert got == {"code": "UNKNOWN", "details": DETAILS, "trailer": ["2"]}, got


def unimplemented(client: Peer, addr: str) -> None:
    got = client.ask("unimplemented", addr=addr)
    assert got == {"code": "UNIMPLEMENTED"}, got


def cancellation(after: str) -> Row:
    def row(client: Peer, addr: str) -> None:
        got = client.ask("cancel", addr=addr, after=after)
        assert got == {"code": "CANCELLED", "seen": True}, got

    return row


def deadline(client: Peer, addr: str) -> None:
    got = client.ask("deadline", addr=addr, seconds=0.5)
    assert got == {"code": "DEADLINE_EXCEEDED", "seen": True}, got


ROWS: tuple[tuple[str, Row], ...] = (
    ("empty unary, metadata, trailer", unary(0)),
    ("unary of 1 MiB", unary(MIB)),
    ("unary of 16 MiB", unary(16 * MIB)),
    ("client streaming of 4 MiB", client_streaming),
    ("server streaming of 4 MiB", server_streaming),
    ("100 messages in turn", ping_pong),
    ("empty stream", empty_stream),
    ("all status codes", status),
    ("a message with whitespace and Unicode", special_status),
    ("unimplemented method", unimplemented),
    ("cancelled before an answer", cancellation("begin")),
    ("cancelled after the first message", cancellation("first message")),
    ("deadline", deadline),
    (f"{MANY} unary at once", many),
)
NAMES = {"grpcjs": "grpc-js", "grpcio": "grpcio"}
PAIRS = (("grpcjs", "grpcio"), ("grpcio", "grpcjs"), ("grpcjs", "grpcjs"))
"""(client, server)."""
PATHS = (("direct", "direct"), ("relay", "relayed"))


def tunnel(pool: Pool, path: str, server: Peer) -> Tunnel:
    port = int(server.addr.rpartition(":")[2])
    key = ("tunnel", path, server.addr)
    made: Tunnel = pool.keep(key, lambda: Tunnel(path, port, *NO_CAPS), Tunnel.close)
    return made


def _case(title: str, row: Row, pair: tuple[str, str], path: str, words: str) -> Case:
    client, server = pair

    def run(pool: Pool) -> str:
        front = tunnel(pool, path, pool.get(server, "server behind a tunnel", "-serve"))
        key, before = ("used", client, server, path), len(front.switches())
        row(pool.get(client, "client of tunnels", "-serve"), f"127.0.0.1:{front.port}")
        # One HTTP/2 connection carries all rows: it is told of in the first.
        note = front.check_path(before, idle=key in pool.memory)
        pool.memory[key] = True
        return note

    who = f"{NAMES[client]} → forward → expose → {NAMES[server]}, {words}"
    return Case("grpc", title, who, tuple(dict.fromkeys(pair)), run)


def cases() -> Iterator[Case]:
    for pair in PAIRS:
        for path, words in PATHS:
            for title, row in ROWS:
                yield _case(title, row, pair, path, words)
