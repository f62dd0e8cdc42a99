"""Which of the addresses that a relay grants become circuit addresses of ours."""

from __future__ import annotations

import pytest

from punchbridge.addresses import parse
from punchbridge.behaviours.relay_client.exchange import circuit_addrs
from punchbridge.identity import Identity
from punchbridge.reach.candidates import Scope
from punchbridge.wire.circuit import Grant

RELAY, ME, OTHER = (Identity.generate().peer_id for _ in range(3))
LAN = Scope(private=True)
MACHINE = Scope(private=True, loopback=True)


def granted(text: str, scope: Scope) -> bool:
    addrs = circuit_addrs(Grant(1, (parse(text),), b""), RELAY, ME, (), scope)
    assert all(str(addr).endswith(f"/p2p/{RELAY}/p2p-circuit/p2p/{ME}") for addr in addrs)
    return bool(addrs)


@pytest.mark.parametrize(
    "text", ["/ip4/11.0.0.1/tcp/4001", f"/ip6/2600::1/tcp/4001/p2p/{RELAY}", "/dns4/relay.example/tcp/4001"]
)
def test_public_addresses_of_the_relay_are_taken(text: str) -> None:
    assert granted(text, Scope())


@pytest.mark.parametrize("text", ["/ip4/10.0.0.1/tcp/4001", "/ip4/100.64.0.1/tcp/4001", "/ip6/fd00::1/tcp/4001"])
def test_private_ones_only_where_the_operator_allows_them(text: str) -> None:
    assert not granted(text, Scope())
    assert granted(text, LAN)


def test_loopback_ones_only_of_a_relay_that_is_reached_over_loopback() -> None:
    assert not granted("/ip4/127.0.0.1/tcp/4001", LAN)
    assert granted("/ip4/127.0.0.1/tcp/4001", MACHINE)


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/0.0.0.0/tcp/4001",
        "/ip4/0.1.2.3/tcp/4001",
        "/ip4/224.0.0.1/tcp/4001",
        "/ip4/255.255.255.255/tcp/4001",
        "/ip4/192.0.2.1/tcp/4001",
        "/ip4/198.18.0.1/tcp/4001",
        "/ip4/11.0.0.1/tcp/0",
        "/ip4/10.0.0.1/tcp/0",
        "/ip6/64:ff9b::7f00:1/tcp/4001",
        "/ip6/2002:7f00:1::/tcp/4001",
        "/ip6/fec0::2/tcp/4001",
        "/ip6/4000::1/tcp/4001",
        f"/ip4/11.0.0.1/tcp/4001/p2p/{OTHER}",
        f"/ip4/11.0.0.1/tcp/4001/p2p/{RELAY}/p2p-circuit",
    ],
)
def test_no_scope_takes_what_is_no_address_of_the_relay(text: str) -> None:
    assert not granted(text, MACHINE)
