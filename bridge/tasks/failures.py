"""The errors by which work over a network ends in the ordinary course of things. One tuple; it catches nothing."""

from __future__ import annotations

from typing import Final

import trio

from punchbridge.errors import BridgeError

__all__ = ["NETWORK_FAILURES"]

NETWORK_FAILURES: Final = (
    BridgeError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""What ends work with a peer without anybody's defect: the peer or the network failed, time ran out, or the stream was
closed from our side. Whoever catches these ends that piece of work; other errors are defects and go to a supervisor.
"""
