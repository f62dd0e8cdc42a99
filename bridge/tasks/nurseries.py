"""Structured concurrency helpers: a nursery that keeps a single error single. Knows nothing of networks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["flat_nursery"]


@asynccontextmanager
async def flat_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for context managers of the public API: when one task (or the body) failed, that error comes out
    as it is; only several errors come out as a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
        if len(errors) != 1:
            raise
        context = errors[0].__context__
        try:
            raise errors[0]
        finally:
            errors[0].__context__ = context
            del errors, context
