"""The gRPC rows: another gRPC on another libp2p's streams, with grpcio on our bridge at the other end."""

from __future__ import annotations

from collections.abc import Iterator

from foreign.cases import Case
from foreign.peer import Peer, Pool

OTHERS = ("go", "rust", "js")
CHATS = 50
SIZES = ((5, "5 B"), (1 << 20, "1 MiB"), (64 << 20, "64 MiB"))
NAMES = {
    "rpc": "grpcio on ours",
    "host": "grpcio over a py-libp2p host",
    "go": "grpc-go on go-libp2p",
    "rust": "tonic on rust-libp2p",
    "js": "grpc-js on js-libp2p",
}


def check(got: dict[str, object], size: int) -> str:
    """What a peer with gRPC says of its order `grpc`."""
    assert got["same"], got
    assert got["trailer"] == [str(size)], got
    assert str(got["status"]).upper().replace("_", "") == "NOTFOUND", got
    assert got["chats"] == CHATS, got
    assert got["ended"], got
    return ""


def call(pool: Pool, client: Peer, server: Peer, size: int) -> str:
    """One call of each kind. Our own peers take the address; the others dial it once, and call the peer then."""
    if client.kind in ("rpc", "host"):
        return check(client.ask("grpc", addr=server.addr, size=size), size)
    key = ("dialled", client.id, server.id)
    if key not in pool.memory:
        pool.memory[key] = client.ask("dial", addr=server.addr)
    return check(client.ask("grpc", peer=server.id, size=size), size)


def _case(client: str, server: str, size: int, text: str) -> Case:
    def run(pool: Pool) -> str:
        return call(pool, pool.get(client, "client"), pool.get(server, "server"), size)

    kinds = tuple(kind for kind in (client, server))
    return Case("grpc", f"unary of {text}, status, trailer, chat", f"{NAMES[client]} → {NAMES[server]}", kinds, run)


def cases() -> Iterator[Case]:
    for client, server in (pair for kind in OTHERS for pair in (("rpc", kind), (kind, "rpc"))):
        for size, text in SIZES:
            yield _case(client, server, size, text)
