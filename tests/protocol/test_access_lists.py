"""Lists of peers and networks: what a line may say, what a bad one is told, and who is on a list."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.access.lists import MAX_LABEL, Address, Entry, Network, Rules, check_label, parse_list, parse_who
from punchbridge.config.access import AccessLimits
from punchbridge.errors import ConfigError
from punchbridge.iana import source_of
from punchbridge.identity import Identity, peer_id_forms

LIMITS = AccessLimits()
ALICE, BOB, CAROL = (Identity.generate().peer_id for _ in range(3))


def read(text: str | bytes, limits: AccessLimits = LIMITS) -> Rules:
    return parse_list(text if isinstance(text, bytes) else text.encode(), "peers.txt", limits)


def read_or_said(data: bytes) -> Rules | str:
    try:
        return read(data)
    except ConfigError as problem:
        return str(problem)


def test_one_peer_a_line_with_labels_and_comments() -> None:
    base58, cid = peer_id_forms(BOB)
    rules = read(
        f"\ufeff# who may call\r\n\r\n{ALICE} alice's laptop #2 \n   # {CAROL}\n\t{cid}\tbob\n{base58} robert\n"
        "203.0.113.0/24   office\n2001:db8::/32\n198.51.100.7"
    )
    assert rules.entries == (
        Entry(ALICE, "alice's laptop #2"),
        Entry(BOB, "bob"),
        Entry(BOB, "robert"),
        Entry(IPv4Network("203.0.113.0/24"), "office"),
        Entry(IPv6Network("2001:db8::/32")),
        Entry(IPv4Network("198.51.100.7/32")),
    )
    assert rules.peers == {ALICE, BOB}
    assert rules.labels == {ALICE: {"alice's laptop #2"}, BOB: {"bob", "robert"}}
    assert read("# nobody\n") == Rules()
    assert not read("")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"bob", "'bob' is neither a peer id nor an IP network; write 12D3KooW"),
        (b"203.0.113.0/33 office", "neither"),
        (b"fe80::1%eth0", "neither"),
        (b"fe80::%eth0/64", "neither"),
        (b"\xff\xfe", "not UTF-8; save the file"),
        (f"{ALICE} {'x' * (MAX_LABEL + 1)}".encode(), "a label is one printable line of at most 64"),
        (f"{ALICE} a\x1b[2J".encode(), "printable"),
        (b"x" * 600, "600 characters; write one peer id and one label a line"),
    ],
)
def test_a_bad_line_is_named_with_what_to_do(line: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^peers.txt, line 3: .*{words}"):
        read(b"# first\n" + str(BOB).encode() + b"\n" + line + b"\n")


def test_a_list_is_bounded() -> None:
    line = f"{ALICE} a\n"
    assert len(read(line * 3, AccessLimits(entries=3)).entries) == 3
    with pytest.raises(ConfigError, match=r"peers.txt, line 4: more than 3 entries; write networks"):
        read(line * 4, AccessLimits(entries=3))
    with pytest.raises(ConfigError, match=r"peers.txt has more than 10 bytes"):
        read("# " + "x" * 9, AccessLimits(file=10))


def test_who_is_on_a_list() -> None:
    rules = read(f"{ALICE}\n203.0.113.0/24\n2001:db8::/32\n::ffff:198.51.100.0/120\n")
    for text, inside in (
        ("203.0.113.255", True),
        ("203.0.114.0", False),
        ("::ffff:203.0.113.1", True),
        ("198.51.100.9", True),
        ("::ffff:198.51.100.9", True),
        ("198.51.101.9", False),
        ("2001:db8:ffff::", True),
        ("2001:db9::", False),
        ("::cb00:7101", False),
    ):
        assert rules.match(BOB, ip_address(text)) is inside, text
        assert rules.match_address(ip_address(text)) is inside
        assert rules.match(ALICE, ip_address(text))
    assert rules.match(ALICE, None)
    assert not rules.match(BOB, None)
    assert Rules.parse(["0.0.0.0/0"]).match_address(ip_address("9.9.9.9"))
    assert not Rules.parse(["0.0.0.0/0"]).match_address(ip_address("2001:db8::"))
    assert not Rules.parse(["::/0"]).match_address(ip_address("9.9.9.9"))


networks: st.SearchStrategy[Network] = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ip_network(pair, strict=False))


@given(st.lists(networks, max_size=6), st.ip_addresses())
def test_networks_are_those_of_the_standard_library(whom: list[Network], ip: Address) -> None:
    mapped = IPv6Network("::ffff:0:0/96")
    plain = [one for one in whom if isinstance(one, IPv4Network) or not one.overlaps(mapped)]
    rules = Rules(tuple(map(Entry, plain)))
    if source_of(ip) == ip:
        assert rules.match_address(ip) == any(ip in one for one in plain if one.version == ip.version)
    elif rules.match_address(source_of(ip)):
        assert rules.match_address(ip)


entries = st.builds(
    Entry,
    st.sampled_from([ALICE, BOB, CAROL]) | networks.map(lambda one: parse_who(str(one))),
    st.text(max_size=MAX_LABEL).filter(str.isprintable).map(str.strip),
)


@given(st.lists(entries, max_size=8))
def test_what_is_written_is_read_again(lines: list[Entry]) -> None:
    assert read("".join(f"{one.who} {one.label}\n" for one in lines)).entries == tuple(lines)


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_list_or_an_error_that_names_the_place(data: bytes) -> None:
    found = read_or_said(data)
    if isinstance(found, str):
        assert found.startswith("peers.txt, line ")
    else:
        assert all(check_label(one.label) == one.label for one in found.entries)


def test_both_lists_together() -> None:
    one, two = Rules.parse([str(ALICE), "10.0.0.0/8"]), Rules((Entry(BOB, "bob"), Entry(ALICE)))
    both = one | two
    assert both.peers == {ALICE, BOB}
    assert both.labels == {BOB: {"bob"}}
    assert both.match_address(ip_address("10.1.1.1"))
    assert len(both.entries) == 3
    assert (one | Rules()) == one == (Rules() | one)
