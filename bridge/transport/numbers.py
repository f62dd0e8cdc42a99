"""The numbers of connections: one count for all transports of a process."""

from __future__ import annotations

import itertools

__all__ = ["next_id"]

_ids = itertools.count(1)


def next_id() -> int:
    """A number that no other connection of this process has; later ones have higher ones."""
    return next(_ids)
