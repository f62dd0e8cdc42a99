"""The candidate filter and the observed addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import Endpoint, Multiaddr, addr_of, endpoint_of, is_relayed, parse, tcp_addr
from punchbridge.config import NatLimits, PunchLimits
from punchbridge.identity import Identity
from punchbridge.reach.candidates import (
    CandidateRefusal,
    RemoteCandidates,
    Scope,
    filter_remote,
    own_candidates,
    with_ports_of,
)
from punchbridge.reach.nat import Observation
from punchbridge.reach.observed import ObservedAddresses

LIMITS = PunchLimits()
NAT = NatLimits()
PEER = Identity.generate().peer_id
OTHER = Identity.generate().peer_id
STRICT = Scope()
LAN = Scope(private=True)
MACHINE = Scope(private=True, loopback=True)


def filtered(raw: list[bytes], scope: Scope = STRICT, own: tuple[Multiaddr, ...] = ()) -> RemoteCandidates:
    return filter_remote(raw, peer=PEER, own=own, scope=scope, limits=LIMITS)


def judge(text: str, scope: Scope = STRICT, own: tuple[str, ...] = ()) -> CandidateRefusal | None:
    result = filtered([parse(text).to_bytes()], scope, tuple(map(parse, own)))
    assert len(result.accepted) + len(result.refused) == 1
    return result.refused[0][1] if result.refused else None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/ip4/11.1.0.2/tcp/4001", None),
        ("/ip6/2600::1/tcp/4001", None),
        (f"/ip4/11.1.0.2/tcp/4001/p2p/{PEER}", None),
        (f"/ip4/11.1.0.2/tcp/4001/p2p/{OTHER}", CandidateRefusal.OTHER_PEER),
        ("/ip4/127.0.0.1/tcp/22", CandidateRefusal.KIND),
        ("/ip4/10.0.0.1/tcp/22", CandidateRefusal.KIND),
        ("/ip4/192.168.1.1/tcp/80", CandidateRefusal.KIND),
        ("/ip4/100.64.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip4/169.254.1.1/tcp/80", CandidateRefusal.KIND),
        ("/ip4/224.0.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip4/255.255.255.255/tcp/80", CandidateRefusal.KIND),
        ("/ip4/240.0.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip4/0.0.0.0/tcp/80", CandidateRefusal.KIND),
        ("/ip4/0.1.2.3/tcp/80", CandidateRefusal.KIND),
        ("/ip6/::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/::/tcp/80", CandidateRefusal.KIND),
        ("/ip6/fe80::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/ff02::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/fd00::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/::ffff:127.0.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/::ffff:10.0.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/64:ff9b::7f00:1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/2002:7f00:1::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/64:ff9b:1::7f00:1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/64:ff9b:1::a00:1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/fec0::2/tcp/80", CandidateRefusal.KIND),
        ("/ip6/::127.0.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/::ffff:0:127.0.0.1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/2600::5efe:a00:1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/200::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/3fff::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/5f00::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/4000::1/tcp/80", CandidateRefusal.KIND),
        ("/ip6/e000::1/tcp/80", CandidateRefusal.KIND),
        ("/ip4/192.0.0.8/tcp/80", CandidateRefusal.KIND),
        ("/ip4/11.1.0.2/tcp/0", CandidateRefusal.PORT_ZERO),
        ("/ip4/11.1.0.2/udp/4001", CandidateRefusal.TRANSPORT),
        ("/ip4/11.1.0.2/tcp/4001/ws", CandidateRefusal.TRANSPORT),
        ("/ip4/11.1.0.2/tcp/443/tls/ws", CandidateRefusal.TRANSPORT),
        ("/ip4/11.1.0.2/udp/4001/quic-v1", None),
        ("/ip6/2600::1/udp/4001/quic-v1", None),
        (f"/ip4/11.1.0.2/udp/4001/quic-v1/p2p/{OTHER}", CandidateRefusal.OTHER_PEER),
        ("/ip4/127.0.0.1/udp/53/quic-v1", CandidateRefusal.KIND),
        ("/ip4/192.168.1.1/udp/53/quic-v1", CandidateRefusal.KIND),
        ("/ip4/11.1.0.2/udp/0/quic-v1", CandidateRefusal.PORT_ZERO),
        ("/ip4/11.1.0.2/udp/4001/quic-v1/webtransport", CandidateRefusal.TRANSPORT),
        (f"/ip4/11.1.0.2/tcp/443/wss/p2p/{PEER}", CandidateRefusal.TRANSPORT),
        ("/dns4/localhost/tcp/4001", CandidateRefusal.NAME),
        (f"/ip4/11.1.0.2/tcp/4001/p2p/{OTHER}/p2p-circuit", CandidateRefusal.RELAYED),
    ],
)
def test_each_kind_of_remote_candidate(text: str, reason: CandidateRefusal | None) -> None:
    assert judge(text) is reason


def test_private_only_when_allowed_and_loopback_only_for_a_relay_on_this_machine() -> None:
    assert judge("/ip4/192.168.1.1/tcp/4001", LAN) is None
    assert judge("/ip4/100.64.1.1/tcp/4001", LAN) is None
    assert judge("/ip4/127.0.0.1/tcp/4001", LAN) is CandidateRefusal.KIND
    assert judge("/ip4/127.0.0.1/tcp/4001", MACHINE) is None
    for text in ("/ip4/169.254.1.1/tcp/80", "/ip4/0.0.0.0/tcp/80", "/ip4/224.0.0.1/tcp/80"):
        assert judge(text, MACHINE) is CandidateRefusal.KIND


@pytest.mark.parametrize(
    "host", ["0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1"]
)
def test_no_lan_has_addresses_that_are_for_something_else(host: str) -> None:
    assert judge(f"/ip4/{host}/tcp/80", MACHINE) is CandidateRefusal.KIND
    assert own_candidates([], [parse(f"/ip4/{host}/tcp/80")], MACHINE, 16) == ()


def test_our_own_addresses_are_never_dialled() -> None:
    assert judge("/ip4/11.1.0.2/tcp/4001", own=("/ip4/11.1.0.2/tcp/4001",)) is CandidateRefusal.OWN
    assert judge("/ip6/::ffff:11.1.0.2/tcp/4001", own=("/ip4/11.1.0.2/tcp/4001",)) is CandidateRefusal.OWN
    assert judge("/ip4/11.1.0.2/tcp/4002", own=("/ip4/11.1.0.2/tcp/4001",)) is None


def test_one_number_is_another_port_over_the_other_transport() -> None:
    assert judge("/ip4/11.1.0.2/udp/4001/quic-v1", own=("/ip4/11.1.0.2/tcp/4001",)) is None
    assert judge("/ip4/11.1.0.2/udp/4001/quic-v1", own=("/ip4/11.1.0.2/udp/4001/quic-v1",)) is CandidateRefusal.OWN


def test_each_transport_has_room_of_its_own_in_one_list() -> None:
    wanted = [addr for n in range(1, 30) for addr in both("11.9.0.1", n)]
    result = filtered([addr.to_bytes() for addr in wanted])
    assert result.accepted == tuple(wanted[: 2 * LIMITS.candidate_ports])
    many = [addr for n in range(1, 30) for addr in both(f"11.9.0.{n}", 4001)]
    assert filtered([addr.to_bytes() for addr in many]).accepted == tuple(many[: 2 * LIMITS.candidate_hosts])
    listed = [addr for n in range(1, 30) for addr in both("11.1.0.2", n)]
    assert own_candidates(listed, (), STRICT, 3) == tuple(listed[:6])


def test_the_ports_of_refused_addresses_are_guessed_for_each_transport() -> None:
    raw = [addr.to_bytes() for addr in both("192.168.1.5", 4001)]
    assert with_ports_of(raw, ["11.1.0.2"], LIMITS) == both("11.1.0.2", 4001)


def both(host: str, port: int) -> tuple[Multiaddr, Multiaddr]:
    return tcp_addr(host, port), parse(f"/ip4/{host}/udp/{port}/quic-v1")


def test_a_scan_list_is_cut_down() -> None:
    hosts = [tcp_addr(f"11.9.0.{n}", 4001).to_bytes() for n in range(1, 200)]
    ports = [tcp_addr("11.9.0.1", n).to_bytes() for n in range(1, 200)]
    assert len(filtered(hosts).accepted) == LIMITS.candidate_hosts
    assert len(filtered(ports).accepted) == LIMITS.candidate_ports
    twice = filtered(ports[:1] * 2)
    assert (len(twice.accepted), twice.refused[0][1]) == (1, CandidateRefusal.DUPLICATE)


_addrs = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda ip, port: tcp_addr(str(ip), port).to_bytes(), st.ip_addresses(), st.integers(0, 65535)),
    st.builds(
        lambda ip, port: addr_of(Endpoint(f"ip{ip.version}", str(ip), port, "udp")).to_bytes(),
        st.ip_addresses(),
        st.integers(0, 65535),
    ),
)


@given(st.lists(_addrs, max_size=80), st.sampled_from([STRICT, LAN, MACHINE]))
def test_any_list_is_filtered_to_a_bounded_one_of_allowed_addresses(raw: list[bytes], scope: Scope) -> None:
    result = filtered(raw, scope)
    for proto in ("tcp", "udp"):
        assert sum(endpoint_of(addr).proto == proto for addr in result.accepted) <= LIMITS.candidates  # type: ignore[union-attr]
    assert len(result.refused) <= LIMITS.candidates
    assert len(set(result.accepted)) == len(result.accepted)
    for addr in result.accepted:
        again = filtered([addr.to_bytes()], scope)
        assert again.accepted == (addr,)
        assert not is_relayed(addr)


def test_own_candidates_observed_first_then_public_listening_ones_never_a_guess() -> None:
    observed = [parse("/ip4/11.1.0.2/tcp/30001")]
    listen = [parse(t) for t in ("/ip4/192.168.1.5/tcp/4001", "/ip6/2600::5/tcp/4001", "/ip4/127.0.0.1/tcp/4001")]
    strict = own_candidates(observed, listen, STRICT, 16)
    assert strict == (parse("/ip4/11.1.0.2/tcp/30001"), parse("/ip6/2600::5/tcp/4001"))
    assert parse("/ip4/192.168.1.5/tcp/4001") in own_candidates(observed, listen, LAN, 16)
    assert own_candidates(observed, listen, STRICT, 1) == (parse("/ip4/11.1.0.2/tcp/30001"),)
    assert own_candidates([], [parse("/ip4/0.0.0.0/tcp/4001")], MACHINE, 16) == ()
    assert own_candidates([parse("/ip4/11.1.0.2/tcp/0")], [], MACHINE, 16) == ()


def record(
    book: ObservedAddresses, observer: str, observed: str, now: float, local: str = "/ip4/10.1.0.2/tcp/4001"
) -> Observation | None:
    return book.record(observer=observer, observer_peer=PEER, local=parse(local), observed=parse(observed), now=now)


def test_observed_addresses_newest_first_and_each_once() -> None:
    book = ObservedAddresses(NAT)
    assert record(book, "11.0.0.10", "/ip4/11.1.0.2/tcp/30001", 1.0) is not None
    assert record(book, "11.0.0.10", "/ip4/11.1.0.2/tcp/30001", 2.0) is None
    assert record(book, "11.0.0.20", "/ip4/11.1.0.2/tcp/30002", 3.0) is not None
    assert book.addresses() == (parse("/ip4/11.1.0.2/tcp/30002"), parse("/ip4/11.1.0.2/tcp/30001"))
    assert record(book, "11.0.0.20", "/ip4/11.1.0.2/tcp/30001", 4.0) is not None
    assert book.addresses() == (parse("/ip4/11.1.0.2/tcp/30001"),)


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/0.0.0.0/tcp/4001",
        "/ip4/11.1.0.2/tcp/0",
        "/ip4/11.1.0.2/udp/4001",
        "/ip4/11.1.0.2/udp/4001/quic-v1",
        "/ip4/11.1.0.2/tcp/443/tls/ws",
        "/dns4/a.example/tcp/1",
        "/ip6/2600::1/tcp/1",
    ],
)
def test_an_unusable_observation_is_not_taken(text: str) -> None:
    assert record(ObservedAddresses(NAT), "11.0.0.10", text, 1.0) is None


def test_a_circuit_is_no_observation() -> None:
    text = f"/ip4/11.0.0.10/tcp/4001/p2p/{OTHER}/p2p-circuit"
    assert record(ObservedAddresses(NAT), "11.0.0.10", text, 1.0) is None


def test_a_mapping_outlives_its_connection_for_a_while_and_then_goes() -> None:
    book = ObservedAddresses(NAT)
    record(book, "11.0.0.10", "/ip4/11.1.0.2/tcp/30001", 1.0)
    book.forget(observer_peer=PEER, observer="11.0.0.10", now=10.0)
    assert book.addresses(10.0 + NAT.stale) == (parse("/ip4/11.1.0.2/tcp/30001"),)
    assert book.addresses(10.1 + NAT.stale) == ()
    record(book, "11.0.0.20", "/ip4/11.1.0.2/tcp/30002", 11.0)
    assert book.addresses(12.0)[0] == parse("/ip4/11.1.0.2/tcp/30002")
    assert book.mapping(4, "tcp") == "unknown"
    book.clear()
    assert book.addresses() == ()


def test_the_number_of_observers_is_bounded() -> None:
    book = ObservedAddresses(NAT)
    for n in range(3 * NAT.observations):
        record(book, f"11.0.{n // 200}.{n % 200 + 1}", f"/ip4/11.1.0.2/tcp/{30000 + n}", float(n))
    assert len(book.current()) == NAT.observations
    assert book.addresses()[0] == Multiaddr(f"/ip4/11.1.0.2/tcp/{30000 + 3 * NAT.observations - 1}")


def test_a_crowd_that_came_by_itself_does_not_talk_us_out_of_our_address() -> None:
    book = ObservedAddresses(NAT)
    local, true = parse("/ip4/10.0.0.2/tcp/4001"), parse("/ip4/11.0.0.2/tcp/4001")
    book.record(observer="11.9.9.9", observer_peer=PEER, local=local, observed=true, now=0.0)
    for number in range(2 * NAT.observations):
        book.record(
            observer="11.6.6.6",
            observer_port=1000 + number,
            observer_peer=OTHER,
            local=local,
            observed=parse(f"/ip4/11.5.5.{number + 1}/tcp/22"),
            now=1.0 + number,
            inbound=True,
        )
    assert len(book.current(100.0)) == NAT.observations
    assert book.addresses(100.0)[0] == true
    assert len(book.addresses(100.0)) > 1
    assert book.addresses(100.0, chosen=True) == (true,)


def test_what_is_seen_of_a_udp_port_is_kept_apart_from_the_tcp_port_of_the_same_number() -> None:
    book = ObservedAddresses(NAT)
    for proto, port in (("tcp/4001", "tcp/30001"), ("udp/4001/quic-v1", "udp/30002/quic-v1")):
        taken = book.record(
            observer="11.0.0.10",
            observer_peer=PEER,
            local=parse(f"/ip4/10.0.0.1/{proto}"),
            observed=parse(f"/ip4/11.1.0.2/{port}"),
            now=1.0,
        )
        assert taken is not None
    assert set(map(str, book.addresses())) == {"/ip4/11.1.0.2/tcp/30001", "/ip4/11.1.0.2/udp/30002/quic-v1"}
    assert own_candidates(book.addresses(), (), STRICT, 16) == book.addresses()
    assert (book.report(4, "tcp").observers, book.report(4, "udp").observers) == (1, 1)


def test_websocket_addresses_of_ours_are_no_candidates() -> None:
    assert (
        own_candidates([parse("/ip4/11.1.0.2/tcp/443/tls/ws")], [parse("/ip4/11.1.0.2/tcp/80/http")], STRICT, 16) == ()
    )
