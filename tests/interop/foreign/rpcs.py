"""The gRPC rows: another gRPC on another libp2p's streams, with grpcio on our bridge at the other end."""

from __future__ import annotations

from collections.abc import Iterator

from foreign.cases import Case
from foreign.peer import Pool

OTHERS = ("go", "rust", "js")
CHATS = 50
SIZES = ((5, "5 B"), (1 << 20, "1 MiB"), (64 << 20, "64 MiB"))


def _check(got: dict[str, object], size: int) -> str:
    assert got["same"], got
    assert got["trailer"] == [str(size)], got
    assert str(got["status"]).upper().replace("_", "") == "NOTFOUND", got
    assert got["chats"] == CHATS, got
    assert got["ended"], got
    return ""


def _case(client: str, server: str, size: int, text: str) -> Case:
    def run(pool: Pool) -> str:
        one, other = pool.get(client, "client"), pool.get(server, "server")
        if client == "rpc":
            return _check(one.ask("grpc", addr=other.addr, size=size), size)
        key = ("dialled", one.id, other.id)
        if key not in pool.memory:
            pool.memory[key] = one.ask("dial", addr=other.addr)
        return _check(one.ask("grpc", peer=other.id, size=size), size)

    names = {
        "rpc": "grpcio on ours",
        "go": "grpc-go on go-libp2p",
        "rust": "tonic on rust-libp2p",
        "js": "grpc-js on js-libp2p",
    }
    kinds = tuple(kind for kind in (client, server))
    return Case("grpc", f"unary of {text}, status, trailer, chat", f"{names[client]} → {names[server]}", kinds, run)


def cases() -> Iterator[Case]:
    for client, server in (pair for kind in OTHERS for pair in (("rpc", kind), (kind, "rpc"))):
        for size, text in SIZES:
            yield _case(client, server, size, text)
