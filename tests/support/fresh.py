"""Reading an attribute anew, where the type checker believes that it is still what the test has asserted before."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def fresh(value: T) -> T:
    """The value itself. mypy narrows an attribute by an assertion, and no call in between widens it again; it does not
    narrow what a function returns."""
    return value
