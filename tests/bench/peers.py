"""The peers of other implementations that scripts/interop has built, and why one is not here. Builds nothing.

A contender is a program over a transport: its name ends with ` QUIC` where that is QUIC, else it is TCP.
"""

from __future__ import annotations

import sys

from driver import ROOT

sys.path[:0] = [str(ROOT / "tests" / "interop")]

from foreign.build import RECIPES, no_engine, unavailable  # noqa: E402

KINDS = ("go", "rust", "js")
QUIC = " QUIC"
QUIC_PEERS = ("go-libp2p", "rust-libp2p")


def listening(name: str, host: str = "127.0.0.1", port: int = 0) -> tuple[str, str]:
    """The option that makes a contender listen over its transport."""
    return "--listen", f"/ip4/{host}/udp/{port}/quic-v1" if name.endswith(QUIC) else f"/ip4/{host}/tcp/{port}"


def over_quic(commands: dict[str, list[str]], ours: str, notes: list[str]) -> dict[str, list[str]]:
    """The contenders over QUIC of those programs that speak it."""
    found = {f"{name}{QUIC}": commands[name] for name in QUIC_PEERS if name in commands}
    why = no_engine()
    if why is not None:
        notes.append(f"{ours}{QUIC}: not measured, {why}")
        return found
    return {f"{ours}{QUIC}": commands[ours]} | found


def foreign(notes: list[str]) -> dict[str, list[str]]:
    """Name and command of each that can be started now; the others are named in `notes` with the reason."""
    found = {}
    for kind in KINDS:
        name = f"{kind}-libp2p"
        recipe = RECIPES.get(kind)
        if recipe is None:
            notes.append(f"{name}: not measured, the interop suite has no such peer")
        elif (recipe.home / recipe.product).exists():
            found[name] = recipe.argv(recipe.home / recipe.product)
        else:
            notes.append(f"{name}: not measured, {unavailable(kind)}")
    return found
