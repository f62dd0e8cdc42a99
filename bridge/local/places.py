"""Where a program on this side listens: HOST:PORT or unix:PATH. Reads text; opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from punchbridge.access.secret import is_ticket
from punchbridge.errors import ConfigError

__all__ = ["Place", "parse_place"]

_LONGEST_HOST: Final = 253
"""Characters of a host name (RFC 1035 section 2.3.4, as text); reading a name costs the square of its length."""


@dataclass(frozen=True)
class Place:
    """A TCP host and port, or the path of a unix socket (then host and port mean nothing)."""

    host: str = ""
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str) -> Place:
    """Reads HOST:PORT, [IPV6]:PORT or unix:PATH. Raises ConfigError that shows a right one."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or "\0" in path or not _fits(path):
            raise ConfigError(f"{text!r} is no unix socket: unix:PATH, at most 107 bytes")
        return Place(path=path)
    if is_ticket(text):
        raise ConfigError("this is a ticket; here a local place is wanted: HOST:PORT or unix:PATH")
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if len(bare) > _LONGEST_HOST:
        raise ConfigError(f"the host of {text[:40]!r}… has {len(bare)} characters; a name has at most {_LONGEST_HOST}")
    named = bool(colon and bare) and not (":" in bare and bare is host) and not {"[", "]"} & set(bare)
    if not named or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{text!r} is not HOST:PORT, [IPV6]:PORT or unix:PATH; for example 127.0.0.1:50051")
    if int(port) > 65535:
        raise ConfigError(f"{text!r}: a port is at most 65535")
    try:
        bare.encode("idna")
    except UnicodeError as problem:
        raise ConfigError(f"{text!r}: {bare!r} is no host name ({problem})") from None
    return Place(bare, int(port))


def _fits(path: str) -> bool:
    """Whether the path has at most the 107 bytes that the kernel takes; bytes that are no UTF-8 count as they are."""
    try:
        return len(os.fsencode(path)) <= 107
    except UnicodeEncodeError:
        return False
