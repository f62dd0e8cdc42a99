"""Tickets: what one holds, how long it is, every way in which a text is none, and that nothing shows the secret."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.access.secret import SECRET_SIZE, Secret
from punchbridge.access.ticket import MAX_ADDRS, MAX_RELAYS, MAX_TEXT, PREFIX, Ticket, is_ticket, parse_ticket
from punchbridge.addresses import Multiaddr, parse
from punchbridge.digits import BASE58, from_digits, to_digits
from punchbridge.errors import AddressError, TicketError
from punchbridge.identity import PeerId
from punchbridge.keys import KeyKind
from tests.support.identities import identity_of

ED25519 = [PeerId.of_key(bytes.fromhex("08011220") + bytes([n]) * 32) for n in range(MAX_RELAYS + 2)]
HASHED = identity_of(KeyKind.RSA).peer_id
SECP256K1 = identity_of(KeyKind.SECP256K1).peer_id
SERVER, RELAY, OTHER = ED25519[:3]
SECRET = Secret(bytes(range(0xA0, 0xA0 + SECRET_SIZE)))
ONE_RELAY = Ticket(SERVER, SECRET, (parse(f"/ip4/203.0.113.5/tcp/4001/p2p/{RELAY}"),))


def text_of(body: bytes) -> str:
    """A text with a right checksum."""
    return PREFIX + to_digits(body + hashlib.sha256(b"punchbridge ticket" + body).digest()[:4], BASE58)


def read_or_said(text: str) -> Ticket | str:
    try:
        return parse_ticket(text)
    except TicketError as problem:
        return str(problem)


def body_of(text: str) -> bytes:
    return from_digits(text.removeprefix(PREFIX), BASE58)[:-4]


def test_with_one_relay_it_has_160_characters_at_most() -> None:
    longest = dataclasses.replace(
        ONE_RELAY,
        peer=PeerId.of_key(bytes.fromhex("08011220") + b"\xff" * 32),
        relays=(parse(f"/ip4/255.255.255.255/tcp/65535/p2p/{ED25519[9]}"),),
        addrs=(parse("/ip4/255.255.255.255/tcp/65535"), parse("/ip4/255.255.255.254/tcp/65535")),
    )
    assert len(ONE_RELAY.encode()) <= 140
    assert len(longest.encode()) <= 160


def test_its_form() -> None:
    """What a program of another version has to read, byte by byte."""
    ticket = Ticket(
        SERVER,
        SECRET,
        (
            parse(f"/ip4/203.0.113.5/tcp/4001/p2p/{RELAY}"),
            parse(f"/dns4/r.example/tcp/1/p2p/{HASHED}"),
            parse(f"/ip6/2001:db8::1/udp/2/quic-v1/p2p/{RELAY}"),
        ),
        (parse("/ip6/2001:db8::2/tcp/3"), parse("/ip4/1.2.3.4/udp/4/quic-v1")),
        "blog",
    )
    key = RELAY.to_bytes()[6:]
    ip6 = bytes.fromhex("20010db8000000000000000000000001")
    hashed = bytes([34]) + HASHED.to_bytes()
    name = b"\x36\x09r.example\x06\x00\x01"
    assert body_of(ticket.encode()) == b"".join(
        (
            b"\x01\x00" + SERVER.to_bytes()[6:] + b"\x04blog" + SECRET.to_bytes(),
            b"\x01" + ip6[:-1] + b"\x02\x00\x03",
            b"\x02\x01\x02\x03\x04\x00\x04",
            b"\x10\x00" + key + b"\xcb\x00\x71\x05\x0f\xa1",
            b"\x23" + ip6 + b"\x00\x02",
            b"\x1f" + hashed + bytes([len(name)]) + name,
        )
    )
    assert body_of(Ticket(SERVER).encode()) == b"\x01\x00" + SERVER.to_bytes()[6:] + b"\x80"
    assert parse_ticket(ticket.encode()).service == "blog"


ips = st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}") | st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}")
names = st.from_regex(r"/dns[46]?/[a-z]{1,20}\.example", fullmatch=True)
behind = st.integers(0, 65535).flatmap(
    lambda port: st.sampled_from([f"/tcp/{port}", f"/udp/{port}/quic-v1", f"/tcp/{port}/ws", f"/udp/{port}"])
)
plain = st.builds(lambda host, rest: parse(f"{host}{rest}"), ips | names, behind)
peers = st.sampled_from([*ED25519, HASHED, SECP256K1])


@st.composite
def tickets(draw: st.DrawFn) -> Ticket:
    whose = draw(st.lists(peers, max_size=4, unique=True))
    relays = [parse(f"{addr}/p2p/{one}") for one in whose for addr in draw(st.lists(plain, min_size=1, max_size=3))]
    secret = draw(st.none() | st.binary(min_size=SECRET_SIZE, max_size=SECRET_SIZE).map(Secret))
    service = draw(st.just("default") | st.from_regex(r"[!-~]{1,64}", fullmatch=True))
    return Ticket(draw(peers), secret, tuple(relays), tuple(draw(st.lists(plain, max_size=4))), service)


@given(tickets())
def test_what_is_encoded_is_read_again(ticket: Ticket) -> None:
    text = ticket.encode()
    assert len(text) <= MAX_TEXT
    assert is_ticket(text)
    assert parse_ticket(text) == ticket
    assert text[len(PREFIX) :].isalnum()  # a double click takes it whole


@given(tickets(), st.data())
def test_one_wrong_character_or_a_lost_one_is_damage(ticket: Ticket, data: st.DataObject) -> None:
    text = ticket.encode()
    place = data.draw(st.integers(len(PREFIX), len(text) - 1))
    put = data.draw(st.sampled_from(["", *(one for one in BASE58 if one != text[place])]))
    with pytest.raises(TicketError, match=r"damaged.*copy the whole line"):
        parse_ticket(text[:place] + put + text[place + 1 :])


@given(st.data())
def test_two_exchanged_characters_are_damage(data: st.DataObject) -> None:
    text = ONE_RELAY.encode()
    place = data.draw(st.integers(len(PREFIX), len(text) - 2))
    other = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    if other != text:
        with pytest.raises(TicketError, match="damaged"):
            parse_ticket(other)


@given(st.text(max_size=80) | st.text(BASE58, max_size=300).map(lambda digits: PREFIX + digits))
def test_any_text_is_a_ticket_or_a_ticket_error(text: str) -> None:
    with pytest.raises(TicketError, match=r"not a ticket|damaged"):
        parse_ticket(text)


@given(st.binary(max_size=300), st.sampled_from([b"\x01", body_of(ONE_RELAY.encode()), b"\x01\x00" + bytes(32)]))
def test_any_bytes_with_a_right_checksum_are_a_ticket_or_a_ticket_error(raw: bytes, start: bytes) -> None:
    found = read_or_said(text_of(start + raw))
    if isinstance(found, str):
        assert "malformed" in found
    else:
        assert parse_ticket(found.encode()) == found


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_with_a_right_checksum(place: int, byte: int) -> None:
    body = bytearray(body_of(ONE_RELAY.encode()))
    body[place % (len(body) - 1) + 1] = byte
    found = read_or_said(text_of(bytes(body)))
    assert isinstance(found, Ticket) or "malformed" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a ticket"),
        ("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", f"does not begin with {PREFIX}"),
        (PREFIX, "damaged: its checksum"),
        (ONE_RELAY.encode()[:-1], "damaged: its checksum"),
        (ONE_RELAY.encode() + "0", "damaged: it holds a character"),
        (ONE_RELAY.encode().upper(), "damaged: capital and small letters"),
        (PREFIX + "1" * MAX_TEXT, f"too long: {MAX_TEXT + len(PREFIX)} characters, at most {MAX_TEXT}"),
        (PREFIX + " " * 10**6, "too long: 1000009 characters"),
        (text_of(b"\x02anything at all"), "of version 2, and this program reads version 1; update"),
        (text_of(b"\x01"), "malformed, though its checksum is right"),
    ],
)
def test_each_refusal_says_what_it_is(text: str, words: str) -> None:
    with pytest.raises(TicketError, match=words):
        parse_ticket(text)


def test_a_damaged_later_version_is_called_damaged() -> None:
    with pytest.raises(TicketError, match="damaged"):
        parse_ticket(text_of(b"\x02anything")[:-1] + "2")


def test_blanks_and_line_breaks_do_no_harm() -> None:
    text = ONE_RELAY.encode()
    assert parse_ticket(f"  {text[:40]}\r\n  {text[40:90]}\n{text[90:]}\n") == ONE_RELAY


def test_nothing_shows_the_secret() -> None:
    raw, text = SECRET.to_bytes(), ONE_RELAY.encode()
    shown = [repr(SECRET), str(SECRET), repr(ONE_RELAY), str(ONE_RELAY), repr(dataclasses.asdict(ONE_RELAY))]
    bad = [
        text[:-1],
        text + "1",
        text[:50] + "0" + text[50:],
        text * 20,
        text.lower(),
        "x" + text,
        text_of(b"\x02" + raw),
    ]
    for one in bad:
        with pytest.raises(TicketError) as problem:
            parse_ticket(one)
        shown += [str(problem.value), repr(problem.value.__context__) if problem.value.__context__ else ""]
    for one in shown:
        assert raw.hex() not in one
        assert repr(raw) not in one
        assert text[60:70] not in one
        assert text[60:70].lower() not in one


def test_secrets_are_equal_by_their_bytes() -> None:
    twin = Secret(SECRET.to_bytes())
    assert twin == SECRET
    assert len({twin, SECRET, Secret(bytes(SECRET_SIZE))}) == 2
    assert SECRET.to_bytes() != SECRET
    assert SECRET.digest == hashlib.sha256(SECRET.to_bytes()).digest()
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        Secret(bytes(15))


def test_what_can_be_dialled() -> None:
    ticket = dataclasses.replace(ONE_RELAY, addrs=(parse(f"/ip4/1.2.3.4/tcp/5/p2p/{SERVER}"),))
    assert [str(one) for one in ticket.addrs] == ["/ip4/1.2.3.4/tcp/5"]
    assert [str(one) for one in parse_ticket(ticket.encode()).targets] == [
        f"/ip4/1.2.3.4/tcp/5/p2p/{SERVER}",
        f"/ip4/203.0.113.5/tcp/4001/p2p/{RELAY}/p2p-circuit/p2p/{SERVER}",
    ]


def test_records_of_later_programs_are_skipped() -> None:
    body = body_of(ONE_RELAY.encode())
    assert parse_ticket(text_of(body + b"\x80\x03abc\xff\x00")) == ONE_RELAY
    unknown = b"\x0f\x03\xff\xff\x03"  # an address of no protocol that we know
    circuit = Multiaddr(f"/ip4/1.2.3.4/tcp/5/p2p/{RELAY}/p2p-circuit").to_bytes()
    assert parse_ticket(text_of(body + unknown + b"\x0f" + bytes([len(circuit)]) + circuit)) == ONE_RELAY
    for head in (b"\x30", b"\x04", b"\x7f"):
        with pytest.raises(TicketError, match="malformed"):
            parse_ticket(text_of(body + head + bytes(60)))


def test_a_further_address_needs_a_relay_before_it() -> None:
    with pytest.raises(TicketError, match="malformed"):
        parse_ticket(text_of(body_of(Ticket(SERVER, SECRET).encode()) + b"\x20\x01\x02\x03\x04\x00\x01"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"relays": (parse("/ip4/1.2.3.4/tcp/5"),)}, "not the address of a relay"),
        ({"relays": (parse(f"/p2p/{RELAY}"),)}, "not the address of a relay"),
        ({"relays": (parse(f"/ip4/1.2.3.4/tcp/5/p2p/{RELAY}/p2p-circuit/p2p/{OTHER}"),)}, "not the address of a relay"),
        ({"addrs": (parse(f"/ip4/1.2.3.4/tcp/5/p2p/{RELAY}/p2p-circuit"),)}, "not a direct address"),
        ({"addrs": (parse(f"/ip4/1.2.3.4/tcp/5/p2p/{OTHER}"),)}, "not an address of the peer"),
        ({"addrs": (parse(f"/p2p/{SERVER}"),)}, "not an address of the peer"),
        ({"addrs": tuple(parse(f"/ip4/1.2.3.4/tcp/{n}") for n in range(MAX_ADDRS + 1))}, "name fewer"),
        ({"relays": tuple(parse(f"/ip4/1.2.3.4/tcp/5/p2p/{one}") for one in ED25519[: MAX_RELAYS + 1])}, "name fewer"),
        (
            {"relays": tuple(parse(f"/ip4/1.2.3.4/tcp/{n}/p2p/{RELAY}") for n in range(MAX_ADDRS + 1))},
            "name fewer",
        ),
        ({"service": ""}, "a service has a name"),
        ({"service": "a b"}, "a service has a name"),
        ({"service": "ä"}, "a service has a name"),
        ({"service": "x" * 65}, "a service has a name"),
    ],
)
def test_what_no_ticket_can_hold(fields: dict[str, object], words: str) -> None:
    with pytest.raises(TicketError, match=words) as problem:
        dataclasses.replace(ONE_RELAY, **fields)  # type: ignore[arg-type]
    assert isinstance(problem.value, AddressError)


def test_more_than_fits_is_told_when_it_is_made() -> None:
    many = [f"/ip6/2001:db8::{n}/tcp/4001/p2p/{one}" for one in ED25519[:MAX_RELAYS] for n in range(4)]
    with pytest.raises(TicketError, match=f"more than {MAX_TEXT}; name fewer relays"):
        Ticket(SERVER, SECRET, tuple(map(parse, many))).encode()
    two = [parse(one) for one in many if not one.startswith(("/ip6/2001:db8::0/", "/ip6/2001:db8::3/"))]
    full = Ticket(SERVER, SECRET, tuple(two), tuple(parse(f"/ip6/2001:db8::{n}/tcp/4001") for n in range(MAX_ADDRS)))
    assert parse_ticket(full.encode()) == full
    with pytest.raises(TicketError, match="too long for a ticket"):
        Ticket(SERVER, addrs=(parse(f"/dns/{'.'.join(['x' * 62] * 4)}/tcp/1"),)).encode()


def test_no_address_and_no_peer_id_is_taken_for_a_ticket() -> None:
    for text in (str(SERVER), SERVER.to_cid(), str(ONE_RELAY.relays[0]), "localhost:50051", "-", ""):
        assert not is_ticket(text)
    assert is_ticket(f"\n {PREFIX}…")
