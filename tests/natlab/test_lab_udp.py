"""UDP in the lab: proof by packet counters, cuts and blocks of one protocol, lost NAT state, loss of single segments.

Datagrams of plain sockets stand for QUIC: what the lab counts begins as QUIC's short header does.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

import pytest
from lab import Lab, proof
from lab.observe import Endpoint

from tests.natlab.natlab_plain import passes, punched, udp_met, udp_observed, udp_punched

pytestmark = pytest.mark.natlab

DELAY = {"relay": 15, "a": 10, "b": 20}
SILENCE = 0.5
SHORT = b"\x40 a short header"
LONG = b"\xc0 a long header"
STRAY = b"\x00 no QUIC at all"
UDP_SEGMENT = 103


def arrives(source: socket.socket, target: socket.socket, data: bytes = SHORT, seconds: float = 1.0) -> bool:
    """Whether a datagram sent at one end arrives at the other in time."""
    source.send(data)
    return bool(select.select([target], [], [], seconds)[0]) and target.recv(64) == data


@pytest.mark.parametrize(
    "pair",
    [("home", "home"), ("eimhash", "cgnat"), ("same-nat", "same-nat"), ("same-lan", "same-lan"), ("firewall", "home")],
    ids="-".join,
)
def test_quic_is_proven_by_the_packets_of_both_hosts(pair: tuple[str, str]) -> None:
    with Lab(*pair) as lab, udp_punched(lab) as ends:
        assert proof.established_pairs(lab) == []
        assert arrives(ends["a"], ends["b"])
        assert proof.established_pairs(lab) == []  # nothing has come back yet
        assert arrives(ends["b"], ends["a"])
        (found,) = proof.direct_pairs(lab)
        assert found.protocol == "udp"
        for side, end in (("a", found.a), ("b", found.b)):
            assert end.local == Endpoint(*ends[side].getsockname())
            assert end.remote == Endpoint(*ends[side].getpeername())
        assert (found.a.external, found.b.external) == (found.b.remote, found.a.remote)
        assert found.a.received == found.b.received == len(SHORT) + 28


def test_datagrams_without_keys_prove_nothing() -> None:
    with Lab("home", "home") as lab, udp_punched(lab) as ends:
        for data in (STRAY, LONG):
            assert arrives(ends["a"], ends["b"], data)
            assert arrives(ends["b"], ends["a"], data)
        assert proof.traffic(lab)["direct"] > 0
        assert proof.established_pairs(lab) == []


def test_what_a_flow_carried_before_is_no_proof_for_what_follows() -> None:
    with Lab("home", "home") as lab, udp_punched(lab) as ends:
        assert arrives(ends["a"], ends["b"])
        assert arrives(ends["b"], ends["a"])
        carried = proof.established_pairs(lab)
        assert len(carried) == 1
        assert proof.direct_pairs(lab, since=carried) == []
        assert arrives(ends["a"], ends["b"])
        assert proof.direct_pairs(lab, since=carried) == []
        assert arrives(ends["b"], ends["a"])
        assert [pair.tuples for pair in proof.direct_pairs(lab, since=carried)] == [carried[0].tuples]


def test_what_the_relay_carries_is_no_direct_flow() -> None:
    with Lab("home", "home") as lab, lab.socket("relay", kind=socket.SOCK_DGRAM) as relay:
        relay.bind(("11.0.0.10", 7301))
        with lab.socket("a", kind=socket.SOCK_DGRAM) as inside:
            inside.connect(("11.0.0.10", 7301))
            inside.send(SHORT)
            data, back = relay.recvfrom(64)
            relay.sendto(data, back)
            assert inside.recv(64) == SHORT
        assert lab.udp_heard("a") == {}


@pytest.mark.parametrize("pair", [("home", "home"), ("same-nat", "same-nat")], ids="-".join)
def test_a_cut_of_one_protocol_leaves_the_other(pair: tuple[str, str]) -> None:
    with Lab(*pair) as lab, punched(lab) as tcp, udp_punched(lab) as udp:
        lab.cut_direct(protocol="udp")
        assert not arrives(udp["a"], udp["b"], seconds=SILENCE)
        assert passes(tcp["a"], tcp["b"], 1.0)
        lab.heal()
        lab.cut_direct(protocol="tcp")
        assert arrives(udp["a"], udp["b"])
        assert not passes(tcp["a"], tcp["b"], SILENCE)
        with pytest.raises(ValueError, match="tcp or udp"):
            lab.cut_direct(protocol="sctp")


def test_a_cut_with_reset_stops_udp_as_well() -> None:
    with Lab("home", "home") as lab, udp_punched(lab) as ends:
        lab.cut_direct(mode="rst")
        assert not arrives(ends["a"], ends["b"], seconds=SILENCE)
        lab.heal()
        assert arrives(ends["a"], ends["b"])


@pytest.mark.parametrize("nat", ["home", "public", "cgnat"])
def test_a_router_that_blocks_a_protocol_blocks_it_towards_the_relay_too(nat: str) -> None:
    with Lab(nat, "home") as lab:
        assert udp_observed(lab, "a", 5001) is not None
        lab.block("a", "udp")
        assert udp_observed(lab, "a", 5002, seconds=SILENCE) is None
        with lab.socket("relay") as relay, lab.socket("a") as inside:
            relay.bind(("11.0.0.10", 7302))
            relay.listen()
            inside.settimeout(SILENCE)
            inside.connect(("11.0.0.10", 7302))
        lab.heal()
        assert udp_observed(lab, "a", 5002, seconds=SILENCE) is None  # that undoes cuts
        lab.unblock("a")
        assert udp_observed(lab, "a", 5003) is not None
        lab.block("a", "tcp")
        assert udp_observed(lab, "a", 5004) is not None
        with lab.socket("a") as inside:
            inside.settimeout(SILENCE)
            with pytest.raises(TimeoutError):
                inside.connect(("11.0.0.10", 7302))
        with pytest.raises(ValueError, match="tcp or udp"):
            lab.block("a", "icmp")


def test_after_a_nat_reboot_the_inside_end_opens_the_flow_again() -> None:
    with Lab("home", "home") as lab, udp_punched(lab) as ends:
        lab.nat_reboot("a")
        assert not arrives(ends["b"], ends["a"], seconds=SILENCE)
        assert arrives(ends["a"], ends["b"])
        assert arrives(ends["b"], ends["a"])


def test_a_symmetric_nat_that_rebooted_has_another_port() -> None:
    with Lab("public", "symmetric") as lab:
        before = udp_observed(lab, "b", 5001)
        assert udp_observed(lab, "b", 5001) == before
        lab.nat_reboot("b")
        after = udp_observed(lab, "b", 5001)
        assert before is not None
        assert after is not None
        assert after[0] == before[0]
        assert after[1] != before[1]


@pytest.mark.parametrize("nat", ["fullcone", "addr-restricted"])
def test_a_cone_forgets_at_a_reboot_what_it_had_learnt(nat: str) -> None:
    with Lab(nat, "public") as lab, lab.socket("a", kind=socket.SOCK_DGRAM) as inside:
        inside.bind((str(lab.hosts["a"].address), 5001))
        with lab.socket("relay", kind=socket.SOCK_DGRAM) as first, lab.socket("relay", kind=socket.SOCK_DGRAM) as other:
            first.bind(("11.0.0.10", 7303))
            inside.sendto(STRAY, ("11.0.0.10", 7303))
            mapped = first.recvfrom(64)[1]
            other.bind(("11.0.0.10", 7304))
            other.connect(mapped)
            assert arrives(other, inside)
            lab.nat_reboot("a")
            assert not arrives(other, inside, seconds=SILENCE)


@pytest.mark.parametrize(("other", "follows"), [("public", True), ("home", False)])
def test_after_an_address_change_only_an_open_far_side_hears_on(other: str, follows: bool) -> None:
    """A port-restricted router lets nobody in but the address that was written to."""
    with Lab(other, "home") as lab, udp_met(lab) as (ends, seen):
        before = lab.hosts["b"].public
        after = lab.nat_address("b")
        assert after != before
        ends["b"].sendto(SHORT, seen["a"])
        assert bool(select.select([ends["a"]], [], [], 1.0 if follows else SILENCE)[0]) is follows
        if follows:
            assert ends["a"].recvfrom(64) == (SHORT, (after, seen["b"][1]))


def test_an_idle_flow_is_forgotten_after_the_time_that_was_set() -> None:
    with Lab("home", "home") as lab:
        lab.udp_timeouts("a", 1, 1)
        with udp_punched(lab) as ends:
            assert not select.select([ends["a"]], [], [], 1.6)[0]
            assert not arrives(ends["b"], ends["a"], seconds=SILENCE)
            assert arrives(ends["a"], ends["b"])
            assert arrives(ends["b"], ends["a"])


def _lossy(lab: Lab) -> None:
    """Loss from the start; see the parametrization."""


def _lossy_later(lab: Lab) -> None:
    lab.set_link("a", loss=0.3)


@pytest.mark.parametrize(("first", "change"), [(0.3, _lossy), (0.0, _lossy_later)], ids=["from-the-start", "later"])
def test_loss_takes_single_segments_of_what_was_sent_at_once(first: float, change: Callable[[Lab], None]) -> None:
    size, segments, times, loss = 1000, 40, 30, 0.3
    with (
        Lab("home", "public", delay={"a": 1}, loss={"a": first}) as lab,
        lab.socket("relay", kind=socket.SOCK_DGRAM) as sink,
        lab.socket("a", kind=socket.SOCK_DGRAM) as source,
    ):
        change(lab)
        sink.bind(("11.0.0.10", 7201))
        source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        survivors = []
        for number in range(times):
            pieces = [bytes((number, piece)) + bytes(size - 2) for piece in range(segments)]
            source.sendto(b"".join(pieces), ("11.0.0.10", 7201))
            came = 0
            while select.select([sink], [], [], 0.1)[0]:
                data = sink.recv(2 * size)
                assert len(data) == size
                came += data[0] == number
            survivors.append(came)
    sent = times * segments
    assert sent * (1 - loss) * 0.85 < sum(survivors) < sent * (1 - loss) * 1.15
    assert all(0 < came < segments for came in survivors), survivors
