"""The order of a dial, what is never dialled, and the one error it ends in."""

from __future__ import annotations

import pytest

from punchbridge.addresses import Multiaddr, parse
from punchbridge.errors import AddressError, DialTimeout, RelayRefused, Unreachable, WrongPeer
from punchbridge.identity import Identity, peer_text
from punchbridge.swarm.plan import DialPlan, dial_endpoint, expected_peer, failure

RELAY, PEER, OTHER = (Identity.generate().peer_id for _ in range(3))
V4 = [parse(f"/ip4/11.0.0.{n}/tcp/1") for n in range(3)]
V6 = [parse(f"/ip6/2001:db8::{n}/tcp/1") for n in range(2)]
CIRCUIT = parse(f"/ip4/11.0.0.9/tcp/1/p2p/{peer_text(RELAY)}/p2p-circuit/p2p/{peer_text(PEER)}")


def drain(plan: DialPlan) -> list[object]:
    return list(iter(plan.next, None))


def test_versions_alternate_and_circuits_come_last() -> None:
    assert drain(DialPlan([CIRCUIT, *V4, *V6], most=32)) == [V6[0], V4[0], V6[1], V4[1], V4[2], CIRCUIT]


def over(host: str, *transports: str) -> list[Multiaddr]:
    return [parse(f"/{host}/{transport}") for transport in transports]


def test_the_transports_of_one_host_stand_side_by_side() -> None:
    both = "tcp/1", "udp/1/quic-v1"
    near, far, six = over("ip4/11.0.0.1", *both), over("dns4/a.example", *both), over("ip6/2001:db8::1", *both)
    told = [near[0], far[0], six[0], near[1], far[1], six[1]]
    assert drain(DialPlan(told, most=32)) == [*six, *near, *far]
    assert drain(DialPlan(told, most=32, first="udp")) == [*reversed(six), *reversed(near), *reversed(far)]


def test_only_another_transport_to_the_host_of_the_last_address_is_beside_it() -> None:
    tcp, quic = over("ip4/11.0.0.1", "tcp/1", "udp/1/quic-v1")
    other, circuit = over("ip4/11.0.0.2", "udp/1/quic-v1")[0], CIRCUIT
    plan = DialPlan([tcp, quic, other, circuit], most=32)
    seen = []
    while (addr := plan.next()) is not None:
        seen.append((addr, plan.beside))
    assert seen == [(tcp, True), (quic, False), (other, False), (circuit, False)]


def test_the_relays_of_circuits_are_tried_over_tcp_first() -> None:
    tcp, quic = (parse(f"/ip4/11.0.0.9/{one}/p2p-circuit/p2p/{peer_text(PEER)}") for one in ("tcp/1", "udp/1/quic-v1"))
    plan = DialPlan([quic, tcp], most=32)
    assert (plan.next(), plan.beside, plan.next()) == (tcp, False, quic)


def test_an_address_is_tried_once_even_when_added_again() -> None:
    plan = DialPlan([V4[0], V4[0]], most=32)
    assert drain(plan) == [V4[0]]
    plan.add([V4[0], V4[1]])
    assert drain(plan) == [V4[1]]


def test_the_number_of_addresses_is_bounded_and_the_rest_counted() -> None:
    plan = DialPlan((parse(f"/ip4/11.0.1.{n}/tcp/1") for n in range(12)), most=7)
    assert (len(drain(plan)), plan.skipped) == (7, 5)


@pytest.mark.parametrize(
    "text",
    ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip6/ff02::1/tcp/1", "/ip4/11.0.0.1/tcp/0",
     "/ip4/255.255.255.255/tcp/1", "/ip4/11.0.0.1/udp/1"],
)  # fmt: skip
def test_what_is_never_dialled(text: str) -> None:
    addr = parse(text)
    with pytest.raises(AddressError):
        dial_endpoint(addr)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("/ip4/11.0.0.1/tcp/443/tls/ws", "/tls/ws"),
        (f"/dns4/relay.example/tcp/443/wss/p2p/{peer_text(PEER)}", "/wss"),
        ("/ip4/11.0.0.1/tcp/80/http", "/http"),
        ("/ip6/2600::1/udp/4001/quic-v1/webtransport", "/webtransport"),
        ("/ip4/11.0.0.1/udp/4001", "/udp"),
        ("/ip4/11.0.0.1/tcp/1/ip4/11.0.0.2/tcp/2", "/ip4/tcp"),
    ],
)
def test_a_transport_that_we_do_not_speak_is_refused_by_its_name(text: str, named: str) -> None:
    addr = parse(text)
    with pytest.raises(AddressError, match=f": {named} is not spoken by this node"):
        dial_endpoint(addr)


@pytest.mark.parametrize(
    "text", ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.1/tcp/1", "/ip6/::1/tcp/1", "/dns4/a.b/tcp/1"]
)
def test_the_callers_own_choice_is_dialled(text: str) -> None:
    addr = parse(text)
    dial_endpoint(addr)


def test_the_expected_peer_is_the_named_one_and_must_not_contradict() -> None:
    named = parse(f"/ip4/11.0.0.1/tcp/1/p2p/{peer_text(PEER)}")
    assert expected_peer(named, None) == expected_peer(V4[0], PEER) == PEER
    assert expected_peer(CIRCUIT, None) == PEER
    assert expected_peer(V4[0], None) is None
    with pytest.raises(AddressError, match="another peer"):
        expected_peer(named, OTHER)


def test_a_single_failure_and_failures_of_one_kind_keep_their_type() -> None:
    refused = RelayRefused("no", "NO_RESERVATION")
    assert failure("x", [(CIRCUIT, refused)]) is refused
    assert failure("x", [(CIRCUIT, refused), (V4[0], RelayRefused("no", "X"))]) is refused
    assert isinstance(failure("x", [(V4[0], WrongPeer("w"))]), WrongPeer)


def test_mixed_failures_become_one_error_with_a_line_each() -> None:
    error = failure("x", [(V4[0], WrongPeer("other id")), (V4[1], Unreachable(f"{V4[1]}: refused"))], skipped=3)
    assert type(error) is Unreachable
    assert error.attempts == (
        f"{V4[0]}: WRONG_PEER: other id",
        f"{V4[1]}: refused",
        "3 more addresses were not tried",
    )
    assert type(failure("x", [(V4[0], DialTimeout("t")), (V4[1], DialTimeout("t"))])) is DialTimeout
    assert type(failure("x", [(V4[0], DialTimeout("t")), (V4[1], Unreachable("t"))])) is Unreachable


def test_no_address_is_an_error_that_says_what_to_do() -> None:
    assert "no address is known" in str(failure("x", []))
