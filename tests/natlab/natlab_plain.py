"""A plain-socket hole punch between the two hosts of a lab, for tests of the lab itself."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

from lab import Lab

OBSERVER_PORT = 7101
PORTS = {"a": 6101, "b": 6102}
DEADLINE = 4.0


def _bound(lab: Lab, side: str) -> socket.socket:
    sock = lab.socket(side)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("0.0.0.0", PORTS[side]))
    return sock


def _dialling(lab: Lab, side: str, seen: dict[str, tuple[str, int]]) -> socket.socket:
    sock = _bound(lab, side)
    sock.setblocking(False)
    sock.connect_ex(seen["b" if side == "a" else "a"])
    return sock


def _both_dial(lab: Lab, stack: contextlib.ExitStack, seen: dict[str, tuple[str, int]]) -> dict[str, socket.socket]:
    ends = {side: stack.enter_context(_dialling(lab, side, seen)) for side in PORTS}
    waiting = set(PORTS)
    deadline = time.monotonic() + DEADLINE
    while waiting and (left := deadline - time.monotonic()) > 0:
        ready = select.select([], [ends[side] for side in waiting], [], left)[1]
        waiting -= {side for side in waiting if ends[side] in ready}
    errors = {side: ends[side].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for side in PORTS}
    assert not waiting, f"no connection within {DEADLINE} s"
    assert set(errors.values()) == {0}, errors
    return ends


def _one_dials(lab: Lab, stack: contextlib.ExitStack, seen: dict[str, tuple[str, int]]) -> dict[str, socket.socket]:
    """Without delay between the hosts SYNs cannot cross: the first one meets a closed port, or a listener."""
    listener = stack.enter_context(_bound(lab, "b"))
    listener.listen()
    listener.settimeout(DEADLINE)
    dialling = stack.enter_context(_dialling(lab, "a", seen))
    accepted = stack.enter_context(listener.accept()[0])
    assert select.select([], [dialling], [], DEADLINE)[1]
    return {"a": dialling, "b": accepted}


@contextlib.contextmanager
def punched(lab: Lab) -> Iterator[dict[str, socket.socket]]:
    """One direct TCP connection, by simultaneous open towards the endpoints the relay observed."""
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(lab.socket("relay"))
        relay.bind(("11.0.0.10", OBSERVER_PORT))
        relay.listen()
        seen = {}
        for side in PORTS:
            control = stack.enter_context(_bound(lab, side))
            control.connect(("11.0.0.10", OBSERVER_PORT))
            accepted, seen[side] = relay.accept()
            stack.enter_context(accepted)
        ends = (_one_dials if lab.behaviours["a"].shared else _both_dial)(lab, stack, seen)
        for end in ends.values():
            end.settimeout(DEADLINE)
        yield ends


def passes(source: socket.socket, target: socket.socket, seconds: float) -> bool:
    """Whether a byte sent at one end arrives at the other in time."""
    source.send(b"x")
    return bool(select.select([target], [], [], seconds)[0]) and target.recv(1) == b"x"


def udp_observed(lab: Lab, side: str, port: int, seconds: float = DEADLINE) -> tuple[str, int] | None:
    """The endpoint the relay sees of a datagram from this port of a host, None when none arrives in time."""
    with (
        lab.socket("relay", kind=socket.SOCK_DGRAM) as relay,
        lab.socket(side, kind=socket.SOCK_DGRAM) as sock,
    ):
        relay.bind(("11.0.0.10", OBSERVER_PORT))
        sock.bind(("0.0.0.0", port))
        return _told(sock, relay, seconds)


def _told(sock: socket.socket, relay: socket.socket, seconds: float = DEADLINE) -> tuple[str, int] | None:
    sock.sendto(b"who am I", relay.getsockname())
    if not select.select([relay], [], [], seconds)[0]:
        return None
    host, port = relay.recvfrom(64)[1]
    return host, port


@contextlib.contextmanager
def udp_punched(lab: Lab) -> Iterator[dict[str, socket.socket]]:
    """A UDP socket at each host, connected to what the relay saw of the other, and heard by it."""
    with udp_met(lab) as (ends, seen):
        for side, other in (("a", "b"), ("b", "a")):
            ends[side].connect(seen[other])
        yield ends


@contextlib.contextmanager
def udp_met(lab: Lab) -> Iterator[tuple[dict[str, socket.socket], dict[str, tuple[str, int]]]]:
    """A UDP socket at each host that hears anybody and has heard the other, and what the relay saw of each."""
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(lab.socket("relay", kind=socket.SOCK_DGRAM))
        relay.bind(("11.0.0.10", OBSERVER_PORT))
        ends: dict[str, socket.socket] = {}
        seen: dict[str, tuple[str, int]] = {}
        for side, port in PORTS.items():
            ends[side] = stack.enter_context(lab.socket(side, kind=socket.SOCK_DGRAM))
            ends[side].bind((str(lab.hosts[side].address), port))
            told = _told(ends[side], relay)
            assert told is not None
            seen[side] = told
        deadline = time.monotonic() + DEADLINE
        heard: set[str] = set()
        while heard != set(PORTS):
            assert time.monotonic() < deadline, f"only {heard} heard of the other"
            for side, other in (("a", "b"), ("b", "a")):
                ends[side].sendto(b"\0punch", seen[other])
            for side in PORTS:
                while select.select([ends[side]], [], [], 0.05)[0]:
                    ends[side].recv(64)
                    heard.add(side)
        yield ends, seen
