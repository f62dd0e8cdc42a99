"""Multiaddrs: parsing, questions by protocol code, kinds of hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge import addresses
from punchbridge.addresses import Endpoint
from punchbridge.errors import AddressError
from punchbridge.identity import Identity, peer_text

RELAY, TARGET = Identity.generate().peer_id, Identity.generate().peer_id
CIRCUIT = f"/ip4/11.0.0.10/tcp/4001/p2p/{peer_text(RELAY)}/p2p-circuit/p2p/{peer_text(TARGET)}"


@pytest.mark.parametrize(
    "text", ["", "/", "garbage", "/ip4/1.2.3/tcp/1", "/ip4/1.2.3.4/tcp/99999", "/ip4/1.2.3.4/tcp/1/p2p/xx", "/tcp"]
)
def test_malformed_text_is_an_address_error_that_shows_a_right_one(text: str) -> None:
    with pytest.raises(AddressError, match="/ip4/192"):
        addresses.parse(text)


def test_a_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(AddressError, match=r"/p2p/111.*… \(2005 characters, at most 1024 are read\)") as caught:
        addresses.parse("/p2p/" + "1" * 2000)
    assert len(str(caught.value)) < 200
    name = ".".join(["a" * 63] * 3 + ["a" * 61])
    longest = f"/dns4/{name}/udp/65535/quic-v1/p2p/{RELAY}/p2p-circuit/p2p/{TARGET}"
    addr = addresses.parse(longest)
    assert addresses.decode(addr.to_bytes()) == addr


def test_long_bytes_are_no_address() -> None:
    def hosts(count: int) -> bytes:
        return bytes.fromhex("040b000001") * count

    assert addresses.decode(hosts(100)) is not None
    assert addresses.decode(hosts(103)) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_well_formed_address_or_none(raw: bytes) -> None:
    addr = addresses.decode(raw)
    assert addr is None or addr.to_bytes() == raw


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        addr = addresses.parse(text)
    except AddressError:
        return
    assert addresses.decode(addr.to_bytes()) == addr


def test_truncated_binary_is_not_padded() -> None:
    assert addresses.decode(b"\x04\x01") is None
    assert addresses.decode(bytes.fromhex("040b000001060fa1")) == addresses.parse("/ip4/11.0.0.1/tcp/4001")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(addresses.Multiaddr("/ip6zone/x/ip6/fe80::1/tcp/4001/p2p-circuit").to_bytes(), id="ip6zone"),
        pytest.param(bytes.fromhex("0401020304060fa1a202a503161214" + 20 * "00"), id="not a peer id"),
    ],
)
def test_what_a_stranger_may_send_and_nobody_can_take_apart_is_no_address(raw: bytes) -> None:
    assert addresses.decode(raw) is None


def test_circuit_address_is_split_at_the_circuit() -> None:
    addr = addresses.parse(CIRCUIT)
    circuit = addresses.circuit_of(addr)
    assert circuit is not None
    assert addresses.is_relayed(addr)
    assert circuit.relay_peer == RELAY
    assert circuit.target == TARGET == addresses.peer_of(addr)
    assert str(circuit.relay) == f"/ip4/11.0.0.10/tcp/4001/p2p/{peer_text(RELAY)}"


def test_circuit_without_target_or_relay_part() -> None:
    open_end = addresses.circuit_of(addresses.parse(f"/ip4/11.0.0.10/tcp/4001/p2p/{peer_text(RELAY)}/p2p-circuit"))
    assert open_end is not None
    assert open_end.target is None
    assert addresses.circuit_of(addresses.parse("/ip4/11.0.0.10/tcp/4001")) is None


def test_relayed_is_asked_of_codes_not_of_text() -> None:
    assert not addresses.is_relayed(addresses.parse("/dns4/p2p-circuit.example/tcp/1"))


def test_endpoint() -> None:
    assert addresses.endpoint_of(addresses.parse("/ip6/2600::1/tcp/7")) == Endpoint("ip6", "2600::1", 7, "tcp")
    assert addresses.endpoint_of(addresses.parse("/dns4/relay.example/tcp/4001")) == Endpoint(
        "dns4", "relay.example", 4001, "tcp"
    )
    assert addresses.endpoint_of(addresses.parse("/ip4/1.2.3.4/udp/1")) is None
    with pytest.raises(AddressError):
        _ = Endpoint("dns4", "relay.example", 1, "tcp").ip


@pytest.mark.parametrize(
    ("text", "transport"),
    [
        ("/ip4/11.0.0.1/tcp/1", "tcp"),
        (f"/ip4/11.0.0.1/tcp/1/p2p/{peer_text(TARGET)}", "tcp"),
        (CIRCUIT, "tcp"),
        ("/ip6/2600::1/udp/1/quic-v1", "quic-v1"),
        ("/ip4/11.0.0.1/udp/1", None),
        ("/ip4/11.0.0.1/udp/1/quic-v1/webtransport", None),
        ("/ip4/11.0.0.1/tcp/443/tls/ws", None),
        ("/dns4/relay.example/tcp/443/wss", None),
        ("/ip4/11.0.0.1/tcp/80/http", None),
        ("/ip4/11.0.0.1/tcp/1/ip4/11.0.0.2/tcp/2", None),
        (f"/ip4/11.0.0.1/tcp/443/tls/ws/p2p/{peer_text(RELAY)}/p2p-circuit/p2p/{peer_text(TARGET)}", None),
        (f"/p2p/{peer_text(TARGET)}", None),
    ],
)
def test_what_is_spoken_at_an_address_is_told_by_all_of_its_protocols(text: str, transport: str | None) -> None:
    addr = addresses.parse(text)
    assert addresses.transport_of(addr) == transport
    assert (addresses.endpoint_of(addr) is None) == (transport is None)
    assert addresses.is_spoken(addr) == (transport is not None)


def test_the_same_port_number_is_another_endpoint_in_udp() -> None:
    tcp, udp = (
        addresses.endpoint_of(addresses.parse(f"/ip4/11.0.0.1/{tail}")) for tail in ("tcp/4001", "udp/4001/quic-v1")
    )
    assert tcp is not None
    assert udp is not None
    assert tcp != udp
    assert tcp.place != udp.place
    assert str(addresses.addr_of(udp)) == "/ip4/11.0.0.1/udp/4001/quic-v1"
    assert str(addresses.addr_of(tcp)) == "/ip4/11.0.0.1/tcp/4001"


@pytest.mark.parametrize("tail", [f"p2p/{peer_text(RELAY)}/p2p-circuit", "p2p-circuit", "ip4/11.0.0.2/tcp/2"])
def test_only_a_target_stands_behind_a_circuit(tail: str) -> None:
    with pytest.raises(AddressError, match="behind /p2p-circuit"):
        addresses.circuit_of(addresses.parse(f"/ip4/11.0.0.10/tcp/4001/p2p/{peer_text(RELAY)}/p2p-circuit/{tail}"))


def test_a_path_that_looks_like_a_circuit_is_none() -> None:
    assert addresses.circuit_of(addresses.parse("/unix/tmp/p2p-circuit")) is None


def test_a_name_gives_way_to_its_address_and_the_rest_stays() -> None:
    named = addresses.parse(f"/dns4/relay.example/tcp/4001/p2p/{peer_text(RELAY)}")
    assert str(addresses.with_host(named, "::ffff:11.0.0.1")) == f"/ip4/11.0.0.1/tcp/4001/p2p/{peer_text(RELAY)}"


def test_peer_part_comes_and_goes() -> None:
    bare = addresses.parse("/ip4/11.0.0.1/tcp/4001")
    full = addresses.with_peer(bare, TARGET)
    assert addresses.with_peer(full, TARGET) == full
    assert addresses.without_peer(full) == bare == addresses.without_peer(bare)


def test_socket_names_become_addresses() -> None:
    assert str(addresses.tcp_addr("::ffff:11.0.0.1", 9)) == "/ip4/11.0.0.1/tcp/9"
    assert str(addresses.tcp_addr("fe80::1%eth0", 9)) == "/ip6/fe80::1/tcp/9"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/ip4/11.0.0.1/tcp/1", True),
        ("/ip4/11.0.0.1/tcp/0", False),
        ("/ip4/10.0.0.1/tcp/1", False),
        ("/dns4/relay.example/tcp/1", True),
        ("/ip4/11.0.0.1/udp/1", False),
        ("/ip4/192.0.0.8/tcp/1", False),
        ("/ip6/2600::1/tcp/1", True),
        ("/ip6/::ffff:11.0.0.1/tcp/1", True),
        ("/ip6/::ffff:10.0.0.1/tcp/1", False),
        ("/ip6/64:ff9b::7f00:1/tcp/1", False),
        ("/ip6/2002:7f00:1::/tcp/1", False),
        ("/ip6/2600::5efe:7f00:1/tcp/1", False),
        ("/ip6/200::1/tcp/1", False),
        ("/ip6/4000::1/tcp/1", False),
        (CIRCUIT, False),
    ],
)
def test_public_addresses(text: str, public: bool) -> None:
    assert addresses.is_public(addresses.parse(text)) is public


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("/ip4/127.9.9.9/tcp/1", True),
        ("/ip6/::1/tcp/1", True),
        ("/ip6/::ffff:127.0.0.1/tcp/1", True),
        ("/ip4/10.0.0.1/tcp/1", False),
        ("/dns4/localhost/tcp/1", False),
    ],
)
def test_endpoints_on_loopback(text: str, loopback: bool) -> None:
    endpoint = addresses.endpoint_of(addresses.parse(text))
    assert endpoint is not None
    assert endpoint.on_loopback is loopback


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("11.0.0.1", "11.0.0.1"),
        ("::ffff:11.0.0.1", "11.0.0.1"),
        ("64:ff9b::b00:1", "11.0.0.1"),
        ("2002:b00:1:7::9", "11.0.0.1"),
        ("2001:0:1::f4ff:fffe", "11.0.0.1"),
        ("2600:1:2:3:4:5:6:7", "2600:1:2:3::/64"),
        ("2600:1:2:3:0:5efe:b00:1", "2600:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_counts_as_one_address(host: str, group: str) -> None:
    """An owner of a /64 picks the interface identifier, so an ISATAP address is no other host."""
    assert addresses.address_group(host) == group
