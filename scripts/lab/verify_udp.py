"""Proof that each behaviour treats UDP as it says: mapping, kept port, filtering, denial, forgetting what is idle.

Knows no program and no QUIC: plain datagrams, as `lab.verify` uses plain connections. What a box does with UDP is not
what it does with TCP: it has no reset to answer with, and it knows the end of a flow only by its silence.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from dataclasses import dataclass

from lab.behaviours import Behaviour, Deny, Filtering, Mapping
from lab.lab import Lab
from lab.limits import BIND_SECONDS, PROBE_REPLY_BYTES, PROBE_SECONDS, UDP_IDLE_SECONDS, UDP_IDLE_WAIT_SECONDS
from lab.topology import RELAY4, RELAY6

_OBSERVER_PORTS = 7001, 7002
_INSIDE_PORT, _STRAY_PORT, _IDLE_PORT = 5001, 5002, 5003
_ERRORS = {errno.ECONNREFUSED: "port-unreachable", errno.EHOSTUNREACH: "icmp", errno.EACCES: "icmp"}

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class UdpFacts:
    """What one behaviour shows for UDP.

    `unsolicited`: what a datagram to a port without a mapping meets. `stray`: whether the port is kept towards one
    that such a datagram came from before, `-` where no port is kept. `idle`: whether a flow of which nothing was heard
    for longer than the boxes remember lets its outside end in again. `neighbour` as in `lab.verify.Facts`.
    """

    mapping: str
    port_kept: str
    filtering: str
    unsolicited: str
    stray: str
    idle: str
    neighbour: str


BLOCKED = UdpFacts("blocked", "-", "-", "-", "-", "-", "-")


def expected_udp(what: Behaviour) -> UdpFacts:
    """What the table says a behaviour must show."""
    if what.udp_blocked:
        return BLOCKED
    is_public = what.mapping is Mapping.NONE and what.filtering is Filtering.EIF
    cone = what.filtering in (Filtering.EIF, Filtering.ADF) and not what.routed
    refusal = {Deny.ICMP: "icmp", Deny.OWN: "port-unreachable"}.get(what.deny, "timeout")
    # The own stack of a box that lets such a datagram reach it has a flow of its own then, with that port.
    stray = "moved" if what.deny is Deny.OWN else "kept"
    neighbour = "-"
    if what.shared:
        neighbour = "heard" if what.hairpin or what.one_lan else refusal
    return UdpFacts(
        "EIM" if what.independent else "APDM",
        "yes" if what.port_kept else "no",
        what.filtering.value,
        "heard" if is_public else ("timeout" if cone else refusal),
        stray if what.port_kept else "-",
        "kept" if is_public or cone else "lost",
        neighbour,
    )


def _hears(sock: socket.socket, seconds: float = PROBE_SECONDS) -> Place | None:
    """Where the next datagram came from, None when none came in time. It is taken."""
    if not select.select([sock], [], [], seconds)[0]:
        return None
    host, port = sock.recvfrom(PROBE_REPLY_BYTES)[1][:2]
    return host, port


class _Prober:
    """The sockets of one measurement, closed together."""

    def __init__(self, lab: Lab, what: Behaviour, stack: contextlib.ExitStack) -> None:
        self._lab, self._stack = lab, stack
        self._family = socket.AF_INET6 if what.ipv6_only else socket.AF_INET

    def udp(self, host: str, address: str, port: int) -> socket.socket:
        """A bound socket. One that was just closed may still be held by a child that another thread is starting, until
        that runs its program; so a taken port is asked for again."""
        sock = self._stack.enter_context(self._lab.socket(host, self._family, socket.SOCK_DGRAM))
        until = time.monotonic() + BIND_SECONDS
        while True:
            try:
                sock.bind((address, port))
            except OSError as problem:
                if problem.errno != errno.EADDRINUSE or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return sock

    def meets(self, sender: socket.socket, target: Place, receiver: socket.socket) -> str:
        """What a datagram to `target` meets: `heard` at the receiver, an ICMP error, or `timeout`."""
        sender.connect(target)  # only then the kernel tells of ICMP errors
        sender.send(b"stray")
        ready = select.select([sender, receiver], [], [], PROBE_SECONDS)[0]
        if receiver in ready:
            receiver.recv(PROBE_REPLY_BYTES)
            return "heard"
        if sender not in ready:
            return "timeout"
        number = sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return _ERRORS.get(number, errno.errorcode.get(number, "error"))


def measure_udp(lab: Lab, what: Behaviour, side: str = "a") -> UdpFacts:
    """Probe one side of a running lab. Its boxes remember UDP for the kernel's default times afterwards."""
    host = lab.hosts[side]
    inside = host.address6 if what.ipv6_only else host.address
    public = inside if what.routed else host.public
    assert inside is not None
    assert public is not None
    first, second = RELAY6 if what.ipv6_only else RELAY4
    near, far = _OBSERVER_PORTS
    with contextlib.ExitStack() as stack:
        probe = _Prober(lab, what, stack)
        places = (first, near), (first, far), (second, near)
        observers = {place: probe.udp("relay", *place) for place in places}
        mine = probe.udp(side, inside, _INSIDE_PORT)
        points = []
        for place, observer in observers.items():
            mine.sendto(b"probe", place)
            seen = _hears(observer)
            if seen is None:
                return BLOCKED
            points.append(seen)
        # The one that was written to gets through; without that the filter's silence would mean nothing.
        observers[places[0]].sendto(b"answer", points[0])
        if _hears(mine) is None:
            return BLOCKED
        stranger = "2b00:11::1" if what.ipv6_only else "11.0.0.1"
        filtering = Filtering.APDF
        if probe.meets(probe.udp("router", stranger, 0), points[0], mine) == "heard":
            filtering = Filtering.EIF
        elif probe.meets(probe.udp("relay", first, 0), points[0], mine) == "heard":
            filtering = Filtering.ADF
        neighbour = "-"
        if what.shared:
            target = (inside, _INSIDE_PORT) if what.one_lan else points[0]
            other = "b" if side == "a" else "a"
            neighbour = probe.meets(probe.udp(other, lab.hosts[other].address or "", 0), target, mine)
        unsolicited, stray = _stray(probe, side, inside, public, first)
        return UdpFacts(
            _mapping(points),
            "yes" if {port for _, port in points} == {_INSIDE_PORT} else "no",
            filtering.value,
            unsolicited,
            stray if what.port_kept else "-",
            _idle(lab, probe, side, inside, observers[places[0]], places[0]),
            neighbour,
        )


def _mapping(points: list[Place]) -> str:
    if len(set(points)) == 1:
        return "EIM"
    return "ADM" if points[0] == points[1] else "APDM"


def _stray(probe: _Prober, side: str, inside: str, public: str, relay: str) -> tuple[str, str]:
    """(what a datagram to a port without a mapping meets, whether that port is kept towards its sender then)."""
    mine, sender = probe.udp(side, inside, _STRAY_PORT), probe.udp("relay", relay, 0)
    met = probe.meets(sender, (public, _STRAY_PORT), mine)
    # The sender is connected: it would hear of nobody else.
    port = sender.getsockname()[1]
    sender.close()
    observer = probe.udp("relay", relay, port)
    mine.sendto(b"probe", (relay, port))
    seen = _hears(observer)
    return met, "kept" if seen is not None and seen[1] == _STRAY_PORT else "moved"


def _idle(lab: Lab, probe: _Prober, side: str, inside: str, observer: socket.socket, place: Place) -> str:
    """Whether a mapping lets in again after a silence that is longer than the boxes' memory."""
    lab.udp_timeouts(side, UDP_IDLE_SECONDS, UDP_IDLE_SECONDS)
    try:
        mine = probe.udp(side, inside, _IDLE_PORT)
        mine.sendto(b"probe", place)
        seen = _hears(observer)
        if seen is None:
            return "never heard"
        observer.sendto(b"answer", seen)
        if _hears(mine) is None:
            return "never answered"
        time.sleep(UDP_IDLE_WAIT_SECONDS)  # nothing tells of a mapping's end
        observer.sendto(b"late", seen)
        return "lost" if _hears(mine) is None else "kept"
    finally:
        lab.udp_timeouts(side)
