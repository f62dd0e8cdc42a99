"""The specification of tickets and invitations (docs/spec-access.md) says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from punchbridge.access import ticket
from punchbridge.access.invitations import Outcome
from punchbridge.access.secret import Secret
from punchbridge.access.ticket import Ticket, parse_ticket
from punchbridge.addresses import parse
from punchbridge.config.access import AccessLimits
from punchbridge.identity import parse_peer_id
from punchbridge.wire.invite import INVITE, MAX_INVITE

PAGE = (Path(__file__).parents[2] / "docs/spec-access.md").read_text()


def test_the_example() -> None:
    match = re.search(r"```\n(\S+)\npeer +(\S+)\nrelay +(\S+)\ndirect +(\S+)\n```", PAGE)
    assert match is not None
    text, peer, relay, direct = match.groups()
    secret = Secret(bytes(range(16)))
    assert f"`{secret.to_bytes().hex()}`" in PAGE
    expected = Ticket(parse_peer_id(peer), secret, (parse(relay),), (parse(direct),))
    assert parse_ticket(text) == expected
    assert expected.encode() == text
    assert f"with a direct IPv4 address besides {len(text)}" in PAGE
    assert f"With one IPv4 relay it has {len(Ticket(expected.peer, secret, expected.relays).encode())} " in PAGE


def test_the_bounds() -> None:
    words = " ".join(PAGE.split())
    assert f"at most {ticket.MAX_TEXT} characters, a ticket at most {ticket.MAX_RELAYS} relays" in words
    assert f"and {ticket.MAX_ADDRS} addresses of the peer" in words
    assert f"`{ticket.PREFIX}`" in words
    assert f"`{INVITE}`" in words
    assert f"at most {MAX_INVITE} bytes long" in words
    assert f"takes {AccessLimits().invite_timeout:g} seconds at most" in words


def test_the_answers() -> None:
    assert re.findall(r"^\| ([A-Z_]+) \|", PAGE, re.MULTILINE) == [one.value for one in Outcome]
