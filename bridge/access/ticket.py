"""Tickets: one text that says how a server is reached and holds the secret that lets a peer in.

Pure: text in, value out, and back. A ticket says nothing about whether its secret still holds; the server knows. No
error and no text form of the value shows the secret. Nothing here dials.

The form of a ticket is told in docs/spec-access.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from punchbridge.access.secret import PREFIX, SECRET_SIZE, Secret, is_ticket
from punchbridge.addresses import Multiaddr, decode, is_relayed, peer_of, with_peer, without_peer
from punchbridge.digits import BASE58, from_digits, to_digits
from punchbridge.errors import AddressError, TicketError
from punchbridge.identity import PeerId

__all__ = [
    "DEFAULT_SERVICE",
    "MAX_ADDRS",
    "MAX_RELAYS",
    "MAX_TEXT",
    "PREFIX",
    "Ticket",
    "is_ticket",
    "parse_ticket",
]

VERSION: Final = 1

MAX_TEXT: Final = 1200
"""Characters. Eight relays of two IPv6 addresses each and eight direct addresses have 1067."""

MAX_RELAYS: Final = 8
"""A server keeps reservations with two or three."""

MAX_ADDRS: Final = 8
"""Of the peer itself, and apart from them of each relay."""

MAX_SERVICE: Final = 64
"""Characters of a service's name."""

DEFAULT_SERVICE: Final = "default"

_CHECKSUM: Final = 4
_ED25519: Final = bytes.fromhex("002408011220")
"""What comes before the key in the multihash of an Ed25519 public key (libp2p specs, peer-ids)."""

_NO_SECRET: Final = 0x80
_DIRECT, _RELAY, _FURTHER, _SKIPPED = 0, 1, 2, 8
_OTHER_FORM: Final = 15

_TCP, _UDP, _QUIC_V1 = b"\x06", b"\x91\x02", b"\xcd\x03"
_IP4, _IP6 = b"\x04", b"\x29"
_Form: TypeAlias = tuple[bytes, int, bytes, bytes]
"""The code of the IP, the IP's size, the code of the transport (with 2 bytes of port), the codes behind it."""

_FORMS: Final[dict[int, _Form]] = {
    0: (_IP4, 4, _TCP, b""),
    1: (_IP6, 16, _TCP, b""),
    2: (_IP4, 4, _UDP, _QUIC_V1),
    3: (_IP6, 16, _UDP, _QUIC_V1),
}

_COPY: Final = "copy the whole line that the server printed, or ask for another ticket"


@dataclass(frozen=True)
class Ticket:
    """How a server is reached, and the secret that lets in. Raises TicketError for what no ticket can hold."""

    peer: PeerId
    secret: Secret | None = field(default=None, repr=False)
    """None: the peer is let in because it is listed, or everybody is."""

    relays: tuple[Multiaddr, ...] = ()
    """Where relays are met that the server keeps a reservation with, each ending in /p2p/ID; at most 8 relays."""

    addrs: tuple[Multiaddr, ...] = ()
    """Direct addresses of the server, without /p2p/ID; at most 8."""

    service: str = DEFAULT_SERVICE

    def __post_init__(self) -> None:
        for relay in self.relays:
            if is_relayed(relay) or peer_of(relay) is None or len(list(relay.protocols())) == 1:
                raise TicketError(f"{relay} is not the address of a relay; it has to end in /p2p/RELAY-ID")
        for addr in self.addrs:
            if is_relayed(addr):
                raise TicketError(f"{addr} is not a direct address; name its relay among the relays")
        plain = (_own(addr, self.peer) for addr in self.addrs)
        object.__setattr__(self, "addrs", tuple(dict.fromkeys(plain)))
        groups = _by_relay(self.relays)
        object.__setattr__(self, "relays", tuple(with_peer(one, peer) for peer, of in groups.items() for one in of))
        if len(groups) > MAX_RELAYS or max(map(len, (self.addrs, *groups.values()))) > MAX_ADDRS:
            raise TicketError(f"a ticket holds {MAX_RELAYS} relays, and {MAX_ADDRS} addresses of each; name fewer")
        name = self.service
        if not (name and name.isascii() and name.isprintable() and " " not in name and len(name) <= MAX_SERVICE):
            raise TicketError(f"a service has a name of 1 to {MAX_SERVICE} printable ASCII characters without blanks")

    @property
    def targets(self) -> tuple[Multiaddr, ...]:
        """What can be dialled, each ending in /p2p/ID of the server: direct addresses, then circuits."""
        direct = (with_peer(addr, self.peer) for addr in self.addrs)
        return (*direct, *(with_peer(relay.encapsulate("/p2p-circuit"), self.peer) for relay in self.relays))

    def encode(self) -> str:
        """The text that is handed over: a secret. Raises TicketError when it is longer than MAX_TEXT."""
        service = b"" if self.service == DEFAULT_SERVICE else self.service.encode()
        flags = len(service) | (0 if self.secret else _NO_SECRET)
        out = bytes((VERSION,)) + _peer(self.peer) + bytes((flags,)) + service
        out += b"" if self.secret is None else self.secret.to_bytes()
        out += b"".join(_record(_DIRECT, b"", addr) for addr in self.addrs)
        for peer, addrs in _by_relay(self.relays).items():
            out += _record(_RELAY, _peer(peer), addrs[0])
            out += b"".join(_record(_FURTHER, b"", addr) for addr in addrs[1:])
        text = PREFIX + to_digits(out + _checksum(out), BASE58)
        if len(text) > MAX_TEXT:
            raise TicketError(
                f"a ticket with these addresses has {len(text)} characters, more than {MAX_TEXT}; name fewer relays"
            )
        return text


def parse_ticket(text: str) -> Ticket:
    """Reads a ticket; blanks and line breaks in it, as mail makes them, are dropped.

    Raises TicketError that says which: no ticket at all, too long, damaged, or of a later version. The error does not
    quote the text, since that may hold the secret.
    """
    if not is_ticket(text):
        raise TicketError(f"not a ticket: it does not begin with {PREFIX}; {_COPY}")
    if len(text) > 2 * MAX_TEXT:
        raise TicketError(f"the ticket is too long: {len(text)} characters, at most {MAX_TEXT} are read; {_COPY}")
    digits = "".join(text.split())
    if len(digits) > MAX_TEXT:
        raise TicketError(f"the ticket is too long: {len(digits)} characters, at most {MAX_TEXT} are read; {_COPY}")
    if digits[: len(PREFIX)] != PREFIX:
        raise TicketError(f"the ticket is damaged: capital and small letters were changed; {_COPY}")
    try:
        raw = from_digits(digits[len(PREFIX) :], BASE58)
    except ValueError:
        raise TicketError(f"the ticket is damaged: it holds a character that tickets do not have; {_COPY}") from None
    body, checksum = raw[:-_CHECKSUM], raw[-_CHECKSUM:]
    if not body or checksum != _checksum(body):
        raise TicketError(f"the ticket is damaged: its checksum is wrong, characters are missing or changed; {_COPY}")
    if body[0] != VERSION:
        raise TicketError(
            f"the ticket is of version {body[0]}, and this program reads version {VERSION}; update punchbridge"
        )
    return _decode(body[1:])


class _Malformed(Exception):
    """The bytes end too early, or say what this version does not have."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise _Malformed
        self._at += size
        return found


def _decode(body: bytes) -> Ticket:
    """The fields behind the version. Raises TicketError, for any bytes: the checksum keeps nobody from making some."""
    reader = _Reader(body)
    try:
        peer = _read_peer(reader)
        flags = reader.byte()
        service = reader.take(flags & ~_NO_SECRET).decode("ascii") or DEFAULT_SERVICE
        secret = None if flags & _NO_SECRET else Secret(reader.take(SECRET_SIZE))
        found = list(_records(reader))
        relays = tuple(with_peer(addr, of) for of, addr in found if of is not None)
        return Ticket(peer, secret, relays, tuple(addr for of, addr in found if of is None), service)
    except (_Malformed, AddressError, UnicodeDecodeError):
        raise TicketError(f"the ticket is malformed, though its checksum is right; {_COPY}") from None


def _records(reader: _Reader) -> Iterator[tuple[PeerId | None, Multiaddr]]:
    """The relay (None: the peer itself) and the address of each record. An address that we cannot read is skipped."""
    relay: PeerId | None = None
    while reader:
        head = reader.byte()
        kind, form = head >> 4, head & 15
        if kind >= _SKIPPED:
            reader.take(reader.byte())
            continue
        if kind == _RELAY:
            relay = _read_peer(reader)
        elif kind > _FURTHER or (kind == _FURTHER and relay is None):
            raise _Malformed
        addr = _read_addr(reader, form)
        if addr is not None:
            yield (None if kind == _DIRECT else relay), addr


def _read_peer(reader: _Reader) -> PeerId:
    size = reader.byte()
    return PeerId(reader.take(size) if size else _ED25519 + reader.take(32))


def _read_addr(reader: _Reader, form: int) -> Multiaddr | None:
    if form == _OTHER_FORM:
        addr = decode(reader.take(reader.byte()))
        return None if addr is None or is_relayed(addr) or peer_of(addr) is not None else addr
    if form not in _FORMS:
        raise _Malformed
    ip, size, transport, behind = _FORMS[form]
    return decode(ip + reader.take(size) + transport + reader.take(2) + behind)


def _record(kind: int, who: bytes, addr: Multiaddr) -> bytes:
    raw: bytes = addr.to_bytes()
    for form, (ip, size, transport, behind) in _FORMS.items():
        host, port = raw[len(ip) :][:size], raw[len(ip) + size + len(transport) :][:2]
        if raw == ip + host + transport + port + behind:
            return bytes((kind << 4 | form,)) + who + host + port
    if len(raw) > 255:
        raise TicketError(f"the address {addr} is too long for a ticket; name another")
    return bytes((kind << 4 | _OTHER_FORM,)) + who + bytes((len(raw),)) + raw


def _peer(peer: PeerId) -> bytes:
    raw = peer.to_bytes()
    short = len(raw) == len(_ED25519) + 32 and raw.startswith(_ED25519)
    return b"\0" + raw[len(_ED25519) :] if short else bytes((len(raw),)) + raw


def _own(addr: Multiaddr, peer: PeerId) -> Multiaddr:
    """The address of the peer itself without its id. Raises TicketError for that of another, and for the id alone."""
    plain = without_peer(addr)
    if peer_of(addr) not in (None, peer) or not plain.to_bytes():
        raise TicketError(f"{addr} is not an address of the peer that the ticket is for")
    return plain


def _by_relay(relays: tuple[Multiaddr, ...]) -> dict[PeerId, list[Multiaddr]]:
    """The addresses of each relay without its id, in order, each once."""
    groups: dict[PeerId, list[Multiaddr]] = {}
    for addr in relays:
        peer, plain = peer_of(addr), without_peer(addr)
        assert peer is not None
        if plain not in groups.setdefault(peer, []):
            groups[peer].append(plain)
    return groups


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(b"punchbridge ticket" + data).digest()[:_CHECKSUM]
