"""The AutoNAT v2 rows: who asks whom, from a public host and from behind a home router of the lab."""

from __future__ import annotations

from collections.abc import Iterator

from foreign.cases import Case, NotOffered
from foreign.inlab import run_lab
from foreign.peer import Pool

PAIRS = (("ours", "rust"), ("rust", "ours"), ("go", "ours"), ("ours", "go"), ("js", "ours"), ("ours", "js"))
"""(server, client)."""


def _case(server: str, client: str, nat: str) -> Case:
    def run(pool: Pool) -> str:
        if client == "js" and nat != "public":
            raise NotOffered("js-libp2p ignores observed TCP addresses (Identify.maybeAddObservedAddress): never asks")
        found = run_lab(pool, "foreign.natcase", server=server, client=client, nat=nat)
        assert found["reachable"] is (nat == "public"), found
        return f"after {found['seconds']} s"

    row = "public: reachable" if nat == "public" else "home router: not reachable"
    return Case("autonat", row, f"{client} asks {server}", (server, client), run, lab=True)


def cases() -> Iterator[Case]:
    for nat in ("public", "home"):
        for server, client in PAIRS:
            yield _case(server, client, nat)
