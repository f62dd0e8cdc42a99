"""One side dials later than the other, over NATs whose mappings are open already from an attempt that failed.

The early side's SYN then passes the late side's NAT. Unless the late side's earlier dial is still outstanding it meets
the listener, whose answer the NAT drops (another sequence number than the dial's), and the half-open entry holds the
4-tuple against every further dial.
"""

from __future__ import annotations

import contextlib
import errno
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, session

from punchbridge.addresses import Endpoint, tcp_addr
from punchbridge.transport.tcp.dial import Dial, KeptDials, TupleTaken
from punchbridge.transport.tcp.sockets import listen_socket
from tests.natlab.natlab_programs import Watched, start_relay

pytestmark = [pytest.mark.natlab, pytest.mark.timeout(120)]

LATE_SECONDS = 1.3
"""More than one way of a packet and one SYN's retransmission, less than the patience with a silent socket."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(listener_nat="home", dialer_nat="home", delay={"relay": 15, "a": 10, "b": 20}) as made:
        yield made


@pytest.mark.parametrize("late", ["dialer", "listener"])
def test_a_late_side_s_earlier_dial_takes_the_early_side_s_syn(lab: Lab, tmp_path: Path, late: str) -> None:
    _, address = start_relay(lab, tmp_path / "r")
    lab.cut_direct()  # the first attempt fails, and leaves both mappings open
    listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address)
    target = listener.wait("reservation.accepted", 20)["addrs"][0]
    dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--timeout", "60")
    listener.wait("punch.failed", 40, attempt=1)
    listener.wait("punch.started", 10, attempt=2)  # SYNC leaves now and is half a round trip under way
    stopped = {"dialer": dialer, "listener": listener}[late].process
    if late == "listener":
        time.sleep(0.01)  # its SYNC must leave before it stops; its own dial follows 60 ms later
    stopped.send_signal(signal.SIGSTOP)
    lab.heal()
    time.sleep(LATE_SECONDS)  # being late is the fault under test
    stopped.send_signal(signal.SIGCONT)
    for program in (listener, dialer):
        done = program.wait("punch.succeeded", 30)
        assert done["attempt"] in (1, 2)
        assert not [
            one for one in program.events if one["event"] == "punch.failed" and "EADDRNOTAVAIL" in str(one["seen"])
        ]


@pytest.mark.parametrize("late", ["dialer", "listener"])
def test_the_dials_of_a_failed_run_take_the_syn_of_an_early_peer_in_the_next(
    lab: Lab, tmp_path: Path, late: str
) -> None:
    """Without them the SYN meets the listener through the old mapping, and that run and those after it fail."""
    _, address = start_relay(lab, tmp_path / "r")
    lab.cut_direct()  # a whole run fails, and leaves both mappings open
    options = ("--punch-retry", "5")
    listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address, *options)
    target = listener.wait("reservation.accepted", 20)["addrs"][0]
    dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--timeout", "90", *options)
    last = listener.wait("punch.failed", 60, final=True)["seq"]
    listener.wait("punch.started", 20, after=last, attempt=1)
    stopped = {"dialer": dialer, "listener": listener}[late].process
    if late == "listener":
        time.sleep(0.01)  # its SYNC must leave before it stops; its own dial follows 60 ms later
    stopped.send_signal(signal.SIGSTOP)
    lab.heal()
    time.sleep(LATE_SECONDS)  # being late is the fault under test
    stopped.send_signal(signal.SIGCONT)
    for program in (listener, dialer):
        assert program.wait("punch.succeeded", 30)["attempt"] in (1, 2)


@pytest.mark.parametrize("late", ["dialer", "listener"])
@pytest.mark.parametrize("nat", ["home-rst", "home-icmp", "home-own"])
def test_a_side_half_a_second_late_becomes_direct_between_nats_that_refuse(tmp_path: Path, nat: str, late: str) -> None:
    """The early side's dials are refused all that time."""
    with Lab(listener_nat=nat, dialer_nat=nat, delay={"relay": 15, "a": 10, "b": 20}) as lab:
        _, address = start_relay(lab, tmp_path / "r")
        listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address)
        target = listener.wait("reservation.accepted", 20)["addrs"][0]
        dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--timeout", "60")
        listener.wait("punch.started", 40)
        stopped = {"dialer": dialer, "listener": listener}[late].process
        if late == "listener":
            time.sleep(0.01)  # its SYNC must leave before it stops; its own dial follows 60 ms later
        stopped.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # being late is the fault under test
        stopped.send_signal(signal.SIGCONT)
        for program in (listener, dialer):
            assert program.wait("punch.succeeded", 40)["attempt"] in (1, 2, 3)


def test_the_plain_dial_before_the_punch_takes_the_syn_of_an_early_peer(tmp_path: Path) -> None:
    """A firewalled peer announces its address: the listener's plain dial to it opens a mapping, and then comes late."""
    with Lab(listener_nat="home", dialer_nat="firewall", delay={"relay": 15, "a": 10, "b": 20}) as lab:
        _, address = start_relay(lab, tmp_path / "r")
        listener = Watched(lab, "a", tmp_path / "a", "listen", "--relay", address)
        target = listener.wait("reservation.accepted", 20)["addrs"][0]
        dialer = Watched(lab, "b", tmp_path / "b", "dial", target, "--timeout", "60")
        listener.wait("punch.started", 40)
        time.sleep(0.01)  # its SYNC must leave before it stops; its own dial follows 60 ms later
        listener.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # being late is the fault under test
        listener.process.send_signal(signal.SIGCONT)
        for program in (listener, dialer):
            assert program.wait("punch.succeeded", 30)["attempt"] == 1


def test_a_half_open_entry_of_the_listener_does_not_outlast_two_attempts() -> None:
    """A SYN came, our SYN-ACK is lost: until the kernel gives the entry up, the 4-tuple cannot be dialled."""
    with Lab(listener_nat="public", dialer_nat="public") as lab:
        here, there = (str(lab.hosts[side].address) for side in "ab")
        with session.inside(lab.namespace("a")):
            listener = socket.socket(fileno=listen_socket(tcp_addr("0.0.0.0", 5000)).detach())
        lab.cut_direct(direction="a_b")
        with listener, lab.socket("b") as peer:
            peer.bind((there, 6000))
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.connect((here, 5000))
            peer.close()
            began = time.monotonic()
            with session.inside(lab.namespace("a")):
                with pytest.raises(TupleTaken):
                    Dial(Endpoint("ip4", there, 6000, "tcp"), ("0.0.0.0", 5000))
                while time.monotonic() - began < 30:
                    with contextlib.suppress(TupleTaken):
                        Dial(Endpoint("ip4", there, 6000, "tcp"), ("0.0.0.0", 5000)).close()
                        break
                    time.sleep(0.1)  # the kernel tells nobody when it gives up
            assert 5 < time.monotonic() - began < 9


def test_a_dial_that_stays_half_open_is_not_kept() -> None:
    """The peer's SYN came and our answer never arrives: the next attempt dials anew."""
    with Lab(listener_nat="public", dialer_nat="public") as lab:
        here, there = (str(lab.hosts[side].address) for side in "ab")
        endpoint, source = Endpoint("ip4", there, 6000, "tcp"), ("0.0.0.0", 5000)
        lab.cut_direct(direction="a_b")
        with session.inside(lab.namespace("a")):
            dial = Dial(endpoint, source)
        kept = KeptDials()
        kept.keep(dial)

        def half_open() -> bool:
            return dial.half_open

        assert not half_open()
        with lab.socket("b") as peer:
            peer.bind((there, 6000))
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.connect((here, 5000))
            assert half_open()
            taken = kept.take(endpoint, source)
            assert taken is dial  # half-open since a moment ago only
            kept.keep(dial)
            lab.heal()
            assert kept.take(endpoint, source) is None
            assert select.select([], [peer], [], 5)[1]
            assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED  # it was told


def test_a_dial_of_an_earlier_run_is_renewed_unless_the_peer_has_just_dialled() -> None:
    with Lab(listener_nat="public", dialer_nat="public") as lab:
        here, there = (str(lab.hosts[side].address) for side in "ab")
        endpoint, source = Endpoint("ip4", there, 6000, "tcp"), ("0.0.0.0", 5000)
        lab.cut_direct(direction="a_b")
        kept = KeptDials()

        def dial_and_wait_for_the_next_run() -> Dial:
            with session.inside(lab.namespace("a")):
                dial = Dial(endpoint, source)
            kept.keep(dial)
            kept.age()
            return dial

        dial_and_wait_for_the_next_run()
        kept.restrict(frozenset({endpoint}))
        assert kept.take(endpoint, source) is None  # the kernel's next SYN may be far away
        dial = dial_and_wait_for_the_next_run()
        kept.restrict(frozenset({endpoint}))
        with lab.socket("b") as peer:
            peer.bind((there, 6000))
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.connect((here, 5000))
            assert kept.take(endpoint, source) is dial  # half-open since the exchange began
            kept.keep(dial)
            kept.age()
            kept.restrict(frozenset({endpoint}))
            assert dial.half_open
            assert kept.take(endpoint, source) is None  # what came before the exchange was in vain
