"""The lab builds, measures and breaks networks as it says, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import Lab, UplinkFound, commands, proof, session
from lab.observe import Endpoint

from tests.natlab.natlab_plain import passes, punched

pytestmark = pytest.mark.natlab

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DELAY = {"relay": 15, "a": 10, "b": 20}
SILENCE = 0.5


def test_build_and_teardown_leave_nothing() -> None:
    outside = Path(f"/proc/{os.getppid()}/root/run/netns")
    before = set(os.listdir(outside)) if outside.is_dir() else set()
    with Lab("cgnat", "home", delay=DELAY) as lab:
        # A program that would run for long: the lab's end has to kill it.
        child = lab.popen("a", [sys.executable, "-c", "import time; time.sleep(60)"])
        assert len([name for name in os.listdir(session.NETNS_DIR) if name.startswith(lab.prefix)]) == 8
        during = set(os.listdir(outside)) if outside.is_dir() else set()
    assert during == before
    assert child.returncode == -signal.SIGKILL
    assert os.listdir(session.NETNS_DIR) == []
    with pytest.raises(ChildProcessError):  # the wire and every tool were reaped
        os.waitpid(-1, os.WNOHANG)


# The lab and its program would run for long; the kernel has to end them with the process that is killed.
_KILLED = """
import os, sys, time
sys.path.insert(0, {scripts!r})
from lab import Lab
with Lab(delay={{"relay": 5}}) as lab:
    child = lab.popen("a", [sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, lab._wire.pid, flush=True)
    time.sleep(60)
"""


def test_sigkill_leaves_no_process() -> None:
    code = _KILLED.format(scripts=str(SCRIPTS))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        handles = [os.pidfd_open(int(pid)) for pid in victim.stdout.readline().split()]
        victim.kill()
    waiting = set(handles)
    deadline = time.monotonic() + 5
    while waiting and (left := deadline - time.monotonic()) > 0:
        waiting -= set(select.select(list(waiting), [], [], left)[0])
    for handle in handles:
        os.close(handle)
    assert len(handles) == 2
    assert not waiting


def test_own_leftovers_are_removed_and_others_kept() -> None:
    commands.ip_batch(["netns add left-nata", "netns add other-nata"])
    with Lab("public", "public", prefix="left-"):
        pass
    assert os.listdir(session.NETNS_DIR) == ["other-nata"]


def test_two_labs_side_by_side() -> None:
    with Lab("home", "home") as first, Lab("home", "home") as second:
        for lab in (first, second):
            with punched(lab) as ends:
                assert passes(ends["a"], ends["b"], 1.0)


def test_no_uplink() -> None:
    with Lab("public", "home", ipv6=True) as lab:
        for host in ("a", "b", "relay"):
            with lab.socket(host) as sock:
                sock.settimeout(1.0)
                with pytest.raises(OSError, match=r"unreachable"):
                    sock.connect(("9.9.9.9", 53))
        commands.ip_batch(["route add 9.0.0.0/8 via 11.0.0.10"], lab.namespace("router"))
        with pytest.raises(UplinkFound):
            lab.assert_no_uplink()


def test_a_foreign_interface_is_found() -> None:
    with Lab("public", "public") as lab:
        commands.ip_batch(["link add leak type bridge"], lab.namespace("router"))
        with pytest.raises(UplinkFound, match="leak"):
            lab.assert_no_uplink()


def _fastest(lab: Lab, host: str, address: str, count: int = 5) -> float:
    times = [lab.ping(host, address) for _ in range(count)]
    return min(time * 1000 for time in times if time is not None)


def test_the_wire_delays_each_access_link() -> None:
    with Lab("home", "home", delay=DELAY) as lab:
        assert 50 <= _fastest(lab, "a", "11.0.0.10") < 65
        assert 70 <= _fastest(lab, "b", "11.0.0.10") < 85
        lab.set_link("a", delay=60)
        assert 150 <= _fastest(lab, "a", "11.0.0.10") < 165
    with Lab("home", "home") as lab:
        assert _fastest(lab, "a", "11.0.0.10") < 10
        with pytest.raises(ValueError, match="without delay"):
            lab.set_link("a", delay=60)


def test_a_detour_concerns_direct_packets_only() -> None:
    with Lab("public", "public", delay=DELAY) as lab:
        near = _fastest(lab, "b", str(lab.hosts["a"].address))
        lab.set_detour(40)
        assert near + 75 <= _fastest(lab, "b", str(lab.hosts["a"].address)) < near + 100
        assert 70 <= _fastest(lab, "b", "11.0.0.10") < 85
        lab.set_detour(0)
        assert _fastest(lab, "b", str(lab.hosts["a"].address)) < near + 15
    with Lab("public", "public") as lab, pytest.raises(ValueError, match="delay on link"):
        lab.set_detour(40)


def test_address_resolution_is_not_delayed() -> None:
    with Lab("home", "home", delay={"a": 100}) as lab:
        for node in ("router", "nata"):
            commands.ip_batch(
                ["neigh flush dev toa" if node == "router" else "neigh flush dev wan"], lab.namespace(node)
            )
        assert 200 <= _fastest(lab, "a", "11.0.0.10", 1) < 260


def test_loss_is_per_packet() -> None:
    sent, loss = 400, 0.3
    with (
        Lab("home", "public", delay={"a": 1}, loss={"a": loss}) as lab,
        lab.socket("relay", kind=socket.SOCK_DGRAM) as sink,
        lab.socket("a", kind=socket.SOCK_DGRAM) as source,
    ):
        sink.bind(("11.0.0.10", 7201))
        for number in range(sent):
            source.sendto(str(number).encode(), ("11.0.0.10", 7201))
        received = 0
        while select.select([sink], [], [], SILENCE)[0]:
            sink.recv(64)
            received += 1
    assert sent * (1 - loss) * 0.8 < received < sent * (1 - loss) * 1.2


@pytest.mark.parametrize(
    "pair",
    [("home", "home"), ("home-rst", "home-icmp"), ("eimhash", "cgnat"), ("same-nat", "same-nat"), ("firewall", "home")],
    ids="-".join,
)
def test_punch_and_proof_across_the_nats(pair: tuple[str, str]) -> None:
    with Lab(*pair, delay=DELAY) as lab:
        assert proof.direct_pairs(lab) == []
        with punched(lab) as ends:
            before = proof.traffic(lab)
            assert len(proof.established_pairs(lab)) == 1
            assert proof.direct_pairs(lab) == []
            assert passes(ends["a"], ends["b"], 1.0)
            assert proof.direct_pairs(lab) == []  # nothing has come back yet
            assert passes(ends["b"], ends["a"], 1.0)
            after = proof.traffic(lab)
            (found,) = proof.direct_pairs(lab)
            for side, end in (("a", found.a), ("b", found.b)):
                assert (end.local, end.remote) == (
                    Endpoint(*ends[side].getsockname()),
                    Endpoint(*ends[side].getpeername()),
                )
    assert after["direct"] > before["direct"]
    assert after["relay"] == before["relay"]


def test_matching_sockets_that_no_byte_passes_prove_nothing() -> None:
    with Lab("home", "home") as lab, punched(lab) as ends:
        lab.cut_direct()
        assert not passes(ends["a"], ends["b"], SILENCE)
        assert not passes(ends["b"], ends["a"], SILENCE)
        assert len(proof.established_pairs(lab)) == 1
        assert proof.direct_pairs(lab) == []


def test_what_a_connection_carried_before_is_no_proof_for_what_follows() -> None:
    with Lab("home", "home") as lab, punched(lab) as ends:
        assert passes(ends["a"], ends["b"], 1.0)
        assert passes(ends["b"], ends["a"], 1.0)
        carried = proof.direct_pairs(lab)
        assert [(pair.a.received, pair.b.received) for pair in carried] == [(1, 1)]
        assert proof.direct_pairs(lab, since=carried) == []
        assert passes(ends["a"], ends["b"], 1.0)
        assert proof.direct_pairs(lab, since=carried) == []
        assert passes(ends["b"], ends["a"], 1.0)
        assert [pair.tuples for pair in proof.direct_pairs(lab, since=carried)] == [carried[0].tuples]


def test_symmetric_nats_are_not_punched() -> None:
    with (
        Lab("home", "symmetric", delay=DELAY) as lab,
        pytest.raises(AssertionError, match="no connection"),
        punched(lab),
    ):
        pytest.fail("punched through a symmetric NAT")


@pytest.mark.parametrize("pair", [("home", "home"), ("same-nat", "same-nat")], ids="-".join)
def test_a_cut_is_silent_and_heals(pair: tuple[str, str]) -> None:
    with Lab(*pair) as lab, punched(lab) as ends:
        lab.cut_direct()
        assert not passes(ends["a"], ends["b"], SILENCE)
        lab.heal()
        assert select.select([ends["b"]], [], [], 5.0)[0]  # TCP sends it again


def test_a_one_way_cut() -> None:
    with Lab("home", "home") as lab, punched(lab) as ends:
        lab.cut_direct(direction="a_b")
        assert passes(ends["b"], ends["a"], 1.0)
        assert not passes(ends["a"], ends["b"], SILENCE)


def test_a_cut_with_reset() -> None:
    with Lab("home", "home") as lab, punched(lab) as ends:
        lab.cut_direct(mode="rst")
        ends["a"].send(b"x")
        with pytest.raises(ConnectionResetError):
            ends["a"].recv(1)


def test_a_nat_reboot_kills_silently() -> None:
    with Lab("home", "home") as lab, punched(lab) as ends:
        assert passes(ends["a"], ends["b"], 1.0)
        lab.nat_reboot("a")
        assert not passes(ends["a"], ends["b"], SILENCE)
        assert not passes(ends["b"], ends["a"], SILENCE)


def test_a_link_goes_down_and_comes_back() -> None:
    with Lab("home", "home", ipv6=True) as lab, punched(lab) as ends:
        lab.link_down("a")
        assert not passes(ends["b"], ends["a"], SILENCE)
        lab.link_up("a")
        assert select.select([ends["a"]], [], [], 5.0)[0]
        relay6 = lab.hosts["relay"].address6
        assert relay6 is not None
        assert any(lab.ping("a", relay6, 1.0) is not None for _ in range(5))


def test_a_capture_shows_crossing_syns(tmp_path: Path) -> None:
    with Lab("home", "home", delay=DELAY) as lab:
        lab.capture("a", tmp_path / "a.pcap")
        with punched(lab) as ends:
            assert passes(ends["a"], ends["b"], 1.0)
    data = (tmp_path / "a.pcap").read_bytes()
    syns, offset = [], 24
    while offset < len(data):
        length = int.from_bytes(data[offset + 8 : offset + 12], sys.byteorder)
        frame = data[offset + 16 : offset + 16 + length]
        offset += 16 + length
        if frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[47] & 0x12 == 0x02:
            syns.append((socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])))
    assert ("10.1.0.10", "11.2.0.2") in syns
    assert ("11.2.0.2", "10.1.0.10") in syns


def test_impossible_labs_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown NAT behaviour 'hom'"):
        Lab("hom", "home")
    with pytest.raises(ValueError, match="share a box"):
        Lab("same-nat", "home")
    with pytest.raises(ValueError, match="no link 'c'"):
        Lab(delay={"c": 1})
    with pytest.raises(ValueError, match="below 1"):
        Lab(loss=2)
