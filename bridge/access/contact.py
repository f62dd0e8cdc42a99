"""How a server is reached, as a running `expose` notes it for the commands that make tickets: ids and addresses.

Pure but for two functions at the end. It holds no secret; the file is private all the same, since it says where a
machine is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from punchbridge.access.secret import Secret
from punchbridge.access.ticket import DEFAULT_SERVICE, MAX_ADDRS, MAX_RELAYS, Ticket
from punchbridge.addresses import Multiaddr, parse
from punchbridge.errors import AccessFileError, AddressError
from punchbridge.files import folder_fault, make_folder, read_private, replace_file
from punchbridge.identity import PeerId, parse_peer_id

__all__ = ["Contact", "contact_path", "decode_contact", "encode_contact", "read_contact", "write_contact"]

_FORMAT: Final = "punchbridge contact"
_VERSION: Final = 1
_MOST: Final = 64 * 1024
"""Bytes. What a ticket can hold is far less."""


@dataclass(frozen=True)
class Contact:
    """The server's peer id, the addresses of its relays (each ending in /p2p/ID), and its own direct ones."""

    peer: PeerId
    relays: tuple[Multiaddr, ...] = ()
    addrs: tuple[Multiaddr, ...] = ()

    def ticket(self, secret: Secret | None, service: str = DEFAULT_SERVICE) -> Ticket:
        """A ticket that leads here. Raises TicketError when there are more addresses than a ticket holds."""
        return Ticket(self.peer, secret, self.relays, self.addrs, service)


def contact_path(access: Path) -> Path:
    """The file beside an access file."""
    return access.with_name(f"{access.name}.contact")


def encode_contact(contact: Contact) -> bytes:
    """The text of the file."""
    table = {
        "format": _FORMAT,
        "version": _VERSION,
        "peer": str(contact.peer),
        "relays": [str(one) for one in contact.relays],
        "addrs": [str(one) for one in contact.addrs],
    }
    return f"{json.dumps(table, indent=1)}\n".encode()


def decode_contact(data: bytes, name: str) -> Contact:
    """Reads the text. Raises AccessFileError, for any bytes, that names the file and what to do."""
    try:
        table = json.loads(data.decode()) if len(data) <= _MOST else None
        if not isinstance(table, dict) or table.get("format") != _FORMAT or table.get("version") != _VERSION:
            raise ValueError(f"not a {_FORMAT} of version {_VERSION}")
        relays, addrs = _addrs(table, "relays", MAX_RELAYS * MAX_ADDRS), _addrs(table, "addrs", MAX_ADDRS)
        return Contact(parse_peer_id(str(table.get("peer"))), relays, addrs)
    except (ValueError, RecursionError, AddressError) as problem:
        raise AccessFileError(f"{name} cannot be used: {problem}; start punchbridge expose again") from None


def _addrs(table: dict[str, Any], key: str, most: int) -> tuple[Multiaddr, ...]:
    texts = table.get(key, [])
    if not isinstance(texts, list) or len(texts) > most or not all(isinstance(one, str) for one in texts):
        raise ValueError(f'"{key}" is not a list of at most {most} addresses')
    return tuple(parse(one) for one in texts)


def read_contact(path: Path) -> Contact | None:
    """What stands in the file; None when there is none. Blocks. Raises AccessFileError."""
    try:
        data, fault = read_private(path, _MOST, secret=False)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise AccessFileError(f"cannot read {path}: {problem.strerror}; check its owner and mode") from None
    if fault is not None:
        raise AccessFileError(f"{path} cannot be used: {fault}")
    return decode_contact(data, str(path))


def write_contact(path: Path, contact: Contact) -> None:
    """Puts the file there, mode 0600. Blocks. Raises AccessFileError."""
    try:
        make_folder(path.parent)
        fault = folder_fault(path.parent)
        if fault is not None:
            raise AccessFileError(f"{path} cannot be written: {fault}")
        replace_file(path, encode_contact(contact))
    except OSError as problem:
        raise AccessFileError(f"cannot write {path}: {problem.strerror}; name a writable place") from None
