"""The rows of the key kinds: each side proves an identity of the kind to the other, in Noise and in the TLS of QUIC.

The libraries make Ed25519 keys by themselves; the suite gives each peer a key of the kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from foreign.cases import Case
from foreign.peer import QUIC, TCP, Pool
from punchbridge.keys import KeyKind
from tests.support.identities import KINDS, identity_of

OTHERS = ("rust", "go")
TITLES = {
    KeyKind.ED25519: "Ed25519",
    KeyKind.SECP256K1: "secp256k1",
    KeyKind.ECDSA: "ECDSA P-256",
    KeyKind.RSA: "RSA 2048",
}


def _proven(transport: str, kind: KeyKind, first: str, second: str, shared: Pool) -> str:
    """Connected, each knows the other by the peer id of the key that the other was given, and bytes go both ways."""
    pool = shared.over(transport)
    given = {part: identity_of(kind, number) for number, part in enumerate(("dialer", "acceptor"))}
    flags = {part: ("-identity", one.private_key.serialize().hex()) for part, one in given.items()}
    dialer = pool.get(first, f"dialer with {kind.name}", *flags["dialer"])
    acceptor = pool.get(second, f"acceptor with {kind.name}", *flags["acceptor"])
    assert dialer.id == str(given["dialer"].peer_id), f"{first} made {dialer.id} of its key"
    assert acceptor.id == str(given["acceptor"].peer_id), f"{second} made {acceptor.id} of its key"
    dialer.ask("dial", addr=acceptor.addr)
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        got = one.ask("echo", peer=other.id, size=1000)
        assert got["same"], got
    return ""


def cases() -> Iterator[Case]:
    for kind in KINDS:
        for transport in (TCP, QUIC):
            for other in OTHERS:
                for first, second in (("ours", other), (other, "ours")):
                    run = partial(_proven, transport, kind, first, second)
                    who = f"{first} dials {second}, {transport}"
                    yield Case("keys", TITLES[kind], who, (first, second), run, transport=transport)
