"""Parsers of addresses, tickets, lists and files: what people copy from one another, and what stands on disk."""

from __future__ import annotations

import hashlib
from typing import Final

from punchbridge.access.contact import Contact, decode_contact, encode_contact
from punchbridge.access.lists import Rules, parse_list
from punchbridge.access.records import Records, decode_records, encode_records
from punchbridge.access.secret import Secret
from punchbridge.access.ticket import PREFIX, Ticket, parse_ticket
from punchbridge.addresses import (
    Multiaddr,
    circuit_of,
    decode,
    endpoint_of,
    is_public,
    is_relayed,
    parse,
    peer_of,
    transport_of,
    without_peer,
)
from punchbridge.config.access import AccessLimits
from punchbridge.digits import BASE58, from_digits, to_digits
from punchbridge.errors import AddressError, BridgeError
from punchbridge.keys import KeyRefused, PrivateKey
from punchbridge.local.places import parse_place
from punchbridge.local.target import parse_target
from punchbridge.peer_id import parse_peer_id
from punchbridge.reach.nat import endpoint_key
from punchbridge.wire.proxy import PP2_TYPE_PEER_ID, encode_proxy_header
from tests.fuzz.identities import numbered, of_each_kind
from tests.fuzz.parser import Parser, Script, read, told
from tests.support.proxy_header import read_proxy_header

_US: Final = numbered(0)
_LIMITS: Final = AccessLimits()
_PEER: Final = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
_RSA_PEER: Final = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
_ADDRS: Final = (
    "/ip4/11.0.0.1/tcp/4001",
    f"/ip4/11.0.0.1/tcp/4001/p2p/{_PEER}",
    f"/ip6/2a00:1450::1/tcp/4001/p2p/{_PEER}/p2p-circuit/p2p/{_RSA_PEER}",
    "/dns4/example.com/udp/443/quic-v1",
    "/ip6zone/eth0/ip6/fe80::1/tcp/80/ws",
    "/unix/tmp/x",
    f"/p2p/{_PEER}",
)


def _ask(addr: Multiaddr) -> None:
    """Everything that is asked of an address; none of it may fail but by a word about the address."""
    transport_of(addr), endpoint_of(addr), is_public(addr), is_relayed(addr), endpoint_key(addr)
    try:
        peer_of(addr), without_peer(addr), circuit_of(addr)
    except AddressError:
        pass


def _multiaddr(data: bytes) -> bool:
    addr = decode(data)
    if addr is None:
        return False
    assert addr.to_bytes() == data
    assert decode(parse(str(addr)).to_bytes()) == addr
    _ask(addr)
    return True


def _multiaddr_text(data: bytes) -> bool:
    _ask(parse(read(data)))
    return True


def _target(data: bytes) -> bool:
    target = parse_target(read(data))
    assert parse_target(target.text).peer == target.peer
    return True


def _peer_id(data: bytes) -> bool:
    peer = parse_peer_id(read(data))
    assert parse_peer_id(str(peer)) == peer
    return True


def _ticket(data: bytes) -> bool:
    ticket = parse_ticket(read(data))
    assert parse_ticket(ticket.encode()) == ticket
    return True


def _ticket_body(data: bytes) -> bool:
    """Any bytes behind a checksum that is right: whoever makes tickets of his own can make that too."""
    body = b"\x01" + data[:1000]  # more has no room in the longest ticket that is read
    checksum = hashlib.sha256(b"punchbridge ticket" + body).digest()[:4]
    ticket = parse_ticket(PREFIX + to_digits(body + checksum, BASE58))
    assert parse_ticket(ticket.encode()) == ticket
    assert all(peer_of(addr) == ticket.peer for addr in ticket.targets)
    return True


def _list(data: bytes) -> bool:
    rules = parse_list(data, "list", _LIMITS)
    assert Rules(rules.entries) == rules
    return bool(rules)


def _records(data: bytes) -> bool:
    records = decode_records(data, "access", _LIMITS)
    assert decode_records(encode_records(records), "access", _LIMITS) == records
    assert records.allow.match(_US.peer_id, None) in (True, False)
    records.outcome(Secret(bytes(16)), _US.peer_id, 1e9)
    return bool(records.allowed or records.denied or records.invitations)


def _contact(data: bytes) -> bool:
    contact = decode_contact(data, "contact")
    assert decode_contact(encode_contact(contact), "contact") == contact
    try:
        contact.ticket(None)
    except BridgeError:
        pass
    return True


def _key_file(data: bytes) -> bool:
    key = PrivateKey.parse(data)
    assert PrivateKey.parse(key.serialize()).public.peer_id == key.public.peer_id
    return True


def _place(data: bytes) -> bool:
    place = parse_place(read(data))
    assert (place.path or "").startswith("//") or parse_place(str(place)) == place
    return True


def _proxy(data: bytes) -> bool:
    """The header that a server gets, read by a reader of its own: what was told comes out, whatever it was."""
    script = Script(data)
    source, destination = (str(_ip6(script.take(16))), script.number() % 65536), ("::1", script.number() % 65536)
    value = script.rest()
    header = encode_proxy_header(source, destination, [(PP2_TYPE_PEER_ID, value)])
    found = read_proxy_header(header + b"behind")
    assert found is not None
    assert (found.source, found.values, found.rest) == (source, {PP2_TYPE_PEER_ID: value}, b"behind")
    return True


def _ip6(raw: bytes) -> object:
    from ipaddress import IPv6Address

    return IPv6Address(raw.ljust(16, b"\0"))


def _ticket_seeds() -> list[Ticket]:
    us, relay = _US.peer_id, parse(_ADDRS[1])
    addrs = (parse(_ADDRS[0]), parse("/ip6/2a00:1450::1/udp/4001/quic-v1"), parse("/dns4/example.com/tcp/443"))
    return [
        Ticket(us, Secret(bytes(range(16))), (relay,)),
        Ticket(us, Secret(bytes(16)), (relay,), addrs, "other"),
        Ticket(us),
    ]


def _records_seeds() -> list[bytes]:
    records = Records().allowing(parse_peer_id(_PEER), "alice", _LIMITS).denying(parse_peer_id(_RSA_PEER), "", _LIMITS)
    secret = Secret(bytes(range(16)))
    records = records.inviting(secret, now=1e9, expires=2e9, uses=3, label="b", limits=_LIMITS)
    records = records.redeeming(secret, _US.peer_id, 1.1e9)[1]
    revoked = records.revoking(records.invitations[0].name, 1.2e9, _LIMITS)
    return [encode_records(one) for one in (Records(), records, revoked)]


def _body_of(ticket: Ticket) -> bytes:
    return from_digits(ticket.encode()[len(PREFIX) :], BASE58)[1:-4]


def parsers() -> list[Parser]:
    tickets, us = _ticket_seeds(), _US.peer_id
    contact = Contact(us, (parse(_ADDRS[1]),), (parse(_ADDRS[0]),))
    addrs = [told(text) for text in _ADDRS]
    ids = [told(_PEER), told(_RSA_PEER), told(us.to_cid())]
    lines = told(f"# people\n{_PEER} alice\n\n11.0.0.0/8\n2a00::/16\tnet\n::ffff:1.2.3.4\n{us.to_cid()} b c\n")
    keys = [one.private_key.serialize() for one in of_each_kind()]
    return [
        Parser("multiaddr", _multiaddr, [parse(text).to_bytes() for text in _ADDRS if "zone" not in text]),
        Parser("multiaddr-text", _multiaddr_text, addrs),
        Parser("target", _target, [*addrs, *ids]),
        Parser("peer-id-text", _peer_id, ids),
        Parser("ticket", _ticket, [told(one.encode()) for one in tickets]),
        Parser("ticket-body", _ticket_body, [_body_of(one) for one in tickets]),
        Parser("list", _list, [lines, told(_PEER), b"\xef\xbb\xbf10.0.0.1\r\n"]),
        Parser("access-file", _records, _records_seeds()),
        Parser("contact-file", _contact, [encode_contact(contact), encode_contact(Contact(us))]),
        Parser("key-file", _key_file, keys, (KeyRefused,)),
        Parser("place", _place, [b"127.0.0.1:80", b"[::1]:80", b"unix:/tmp/x", b"localhost:0"]),
        Parser("proxy-header", _proxy, [bytes(32) + told(_PEER), bytes(range(32))], (ValueError,)),
    ]
