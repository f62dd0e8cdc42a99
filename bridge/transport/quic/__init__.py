"""QUIC: connections whose security and streams are its own, over one UDP socket for each bound address.

Its modules import the extension module `punchbridge_quic`; `missing()` says whether it is there, without importing it.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["missing"]


def missing() -> str | None:
    """Why there is no QUIC here, in one sentence; None when there is."""
    if find_spec("punchbridge_quic") is not None:
        return None
    return "the QUIC engine (punchbridge-quic) is not installed, so everything runs over TCP"
