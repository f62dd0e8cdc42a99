"""Where the peers of other implementations are, and why one is not here. Builds nothing: that is scripts/interop."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "punchbridge" / "interop"


def foreign(notes: list[str]) -> dict[str, list[str]]:
    """Commands of the go, rust and js peers that scripts/interop has built."""
    found = {}
    for name, program in (("go-libp2p", "go"), ("rust-libp2p", "rust"), ("js-libp2p", "js")):
        command = _command(program)
        if command is None:
            notes.append(f"{name}: not measured, no peer is built here (scripts/interop build {program})")
        else:
            found[name] = command
    return found


def _command(program: str) -> list[str] | None:
    if program == "js":
        return None
    for path in (CACHE / program / "peer", CACHE / program / "bin" / "peer", CACHE / f"{program}-peer"):
        if path.is_file() and os.access(path, os.X_OK):
            return [str(path)]
    return None
