"""What an IP address is for, by our own copy of IANA's tables; and that nothing decides it by another one."""

from __future__ import annotations

import ast
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.iana import GLOBAL_UNICAST, IP, REGISTRY, Entry, embedded, entry_of, is_broadcast, kind_of, source_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("11.0.0.1", "public"),
        ("2600::1", "public"),
        ("2001:200::1", "public"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", "public"),
        ("192.168.1.1", "private"),
        ("fc00::1", "private"),
        ("fdff::1", "private"),
        ("100.64.0.1", "shared"),
        ("100.128.0.1", "public"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_kinds(host: str, kind: str) -> None:
    assert kind_of(ip_address(host)) == kind


@pytest.mark.parametrize(
    "host",
    [
        "0.1.2.3",
        "192.0.0.1",
        "192.0.0.8",
        "192.0.0.9",
        "192.0.0.10",
        "192.0.0.170",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.88.99.2",
        "192.175.48.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "100::1",
        "100:0:0:1::1",
        "2001:2::1",
        "2001:3::1",
        "2001:4:112::1",
        "2001:10::1",
        "2001:20::1",
        "2001:30::1",
        "2001:1::1",
        "2001:db8::1",
        "2620:4f:8000::1",
        "3fff::1",
        "5f00::1",
        "fec0::2",
        "200::1",
        "300::1",
        "4000::1",
        "8000::1",
        "e000::1",
        "fe00::1",
    ],
)
def test_ranges_that_no_host_is_dialled_in(host: str) -> None:
    assert kind_of(ip_address(host)) == "reserved"


FORMS = {
    "mapped": "::ffff:{0}",
    "IPv4-compatible": "::{0}",
    "SIIT": "::ffff:0:{0}",
    "NAT64": "64:ff9b::{0}",
    "local NAT64": "64:ff9b:1::{0}",
    "ISATAP": "2600::5efe:{0}",
    "ISATAP, global": "2600::200:5efe:{0}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "255.255.255.255", "192.0.2.1"])
def test_an_embedded_address_makes_no_better_one(form: str, inner: str) -> None:
    outer, plain = ip_address(form.format(inner)), ip_address(inner)
    assert embedded(outer) == plain
    assert kind_of(outer) == (kind_of(plain) if form == FORMS["mapped"] else "reserved")
    assert is_broadcast(outer) == (inner == "255.255.255.255")


def test_tunnels_embed_addresses_elsewhere() -> None:
    assert embedded(ip_address("2002:7f00:1::1")) == IPv4Address("127.0.0.1")
    assert embedded(ip_address("2001:0:4136:e378:8000:63bf:80ff:fffe")) == IPv4Address("127.0.0.1")
    assert kind_of(ip_address("2002:b00:1::1")) == "reserved"
    assert kind_of(ip_address("2001:0:b00:1::")) == "reserved"
    assert embedded(ip_address("2600::1")) is None
    assert embedded(ip_address("11.0.0.1")) is None
    assert embedded(ip_address("::1")) is None


def test_what_is_public_inside_stays_so_only_where_the_outer_form_is_routed() -> None:
    assert kind_of(ip_address("::ffff:11.0.0.1")) == "public"
    assert kind_of(ip_address("2600::5efe:11.0.0.1")) == "public"
    assert kind_of(ip_address("64:ff9b::11.0.0.1")) == "reserved"
    assert kind_of(ip_address("fd00::5efe:10.0.0.1")) == "private"
    assert kind_of(ip_address("fd00::5efe:127.0.0.1")) == "reserved"


def test_the_sources_behind_a_translator_are_its_ipv4_hosts() -> None:
    host = IPv4Address("11.0.0.1")
    for text in ("::ffff:11.0.0.1", "64:ff9b::11.0.0.1", "64:ff9b:1::11.0.0.1", "2002:b00:1:5::1", "11.0.0.1"):
        assert source_of(ip_address(text)) == host
    for text in ("2600::5efe:11.0.0.1", "::11.0.0.1", "2600::1", "::1"):
        assert source_of(ip_address(text)) == ip_address(text)


@given(st.ip_addresses(v=6))
def test_ipv6_is_public_only_inside_global_unicast_and_outside_of_the_table(ip: IPv6Address) -> None:
    if kind_of(ip) == "public" and not str(ip).startswith("::ffff:"):
        assert ip in GLOBAL_UNICAST
        assert entry_of(ip) is None


def edges(entry: Entry) -> tuple[IP, ...]:
    return entry.block[0], entry.block[-1]


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: str(entry.block))
def test_each_row_decides_at_its_edges(entry: Entry) -> None:
    assert entry.name
    assert entry.source.startswith("RFC ")
    assert entry.kind != "public"
    for ip in edges(entry):
        closest = entry_of(ip)
        assert closest is not None
        assert closest.block.prefixlen >= entry.block.prefixlen
        assert kind_of(ip) != "public" or embedded(ip) is not None


def test_no_block_stands_twice() -> None:
    assert len({entry.block for entry in REGISTRY}) == len(REGISTRY)


def test_where_this_interpreter_differs(record_property: Callable[[str, object], None]) -> None:
    """For information: the rows that the running interpreter's standard library judges otherwise. Our table decides."""
    differing = {
        str(entry.block): ip for entry in REGISTRY for ip in edges(entry) if ip.is_global != (kind_of(ip) == "public")
    }
    record_property("differs from ipaddress", sorted(differing))
    print("differs from ipaddress:", *sorted(differing))
    assert all(kind_of(ip) != "public" or embedded(ip) is not None for ip in differing.values())


DECIDERS = {
    "is_global",
    "is_private",
    "is_reserved",
    "is_link_local",
    "is_site_local",
    "is_loopback",
    "is_multicast",
    "is_unspecified",
    "ipv4_mapped",
    "sixtofour",
    "teredo",
}
"""What the standard library thinks of an address; its answers have changed between patch levels."""


@pytest.mark.parametrize(
    "path",
    [path for folder in ("bridge", "node", "relay") for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_else_judges_addresses(path: Path) -> None:
    asked = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not asked & DECIDERS
