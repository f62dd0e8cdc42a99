"""The error for a name that no configuration knows, with the nearest name that is known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from punchbridge.errors import ConfigError

__all__ = ["unknown"]

_ELSEWHERE: Final = {
    "portmap": "no router is asked for a port yet",
    "node": "the table [node] belongs to `punchbridge listen` and `punchbridge dial`",
    "relay": "relays is the list of relays to use, and the table [relay] belongs to `punchbridge relay`",
    "telemetry": "there are no metrics yet; subscribe to the events",
}
"""Names that mean something elsewhere, or will in a later version. Here a value for them would do nothing."""


def unknown(name: str, known: Iterable[str], what: str = "setting") -> ConfigError:
    """The error for a name that nothing knows. It tells the nearest one that is known."""
    if name in _ELSEWHERE:
        return ConfigError(f"there is no {what} {name}: {_ELSEWHERE[name]}")
    near = get_close_matches(name, tuple(known), 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "see docs/configuration.md"
    return ConfigError(f"there is no {what} {name}; {hint}")
