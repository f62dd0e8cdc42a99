"""Proof that each behaviour is what it says: mapping, kept port, filtering, denial, with plain sockets.

Knows no punchbridge. Every row is measured on a fresh lab without delay and compared with the table of
`lab.behaviours`; the procedure is the usual one of two observer addresses (RFC 5780 in spirit), here for TCP and in
`lab.verify_udp` for UDP.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from lab.behaviours import BEHAVIOURS, Behaviour, Deny, Filtering, Mapping
from lab.lab import Lab
from lab.limits import PROBE_REPLY_BYTES, PROBE_SECONDS, VERIFY_WORKERS
from lab.topology import RELAY4, RELAY6
from lab.verify_udp import UdpFacts, expected_udp, measure_udp

_OBSERVER_PORTS = 7001, 7002
_ECHO_PORT = 7003
_INSIDE_PORT = 5001
_ANSWERS = {errno.ECONNREFUSED: "rst", errno.ECONNRESET: "rst", errno.EHOSTUNREACH: "icmp", errno.EACCES: "icmp"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What one behaviour shows for TCP, and whether UDP passes at all.

    `neighbour` is what the other host behind a shared box gets, else `-`.
    """

    mapping: str
    port_kept: str
    filtering: str
    unsolicited: str
    udp: str
    neighbour: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, for TCP and for UDP."""

    behaviour: str
    expected: Facts
    seen: Facts
    expected_udp: UdpFacts
    seen_udp: UdpFacts
    seconds: float

    @property
    def passed(self) -> bool:
        return self.expected == self.seen and self.expected_udp == self.seen_udp

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "passed": self.passed}


def expected(what: Behaviour) -> Facts:
    """What the table says a behaviour must show."""
    independent = what.independent
    cone = what.filtering in (Filtering.EIF, Filtering.ADF) and what.mapping is not Mapping.NONE
    refusal = {Deny.DROP: "timeout", Deny.RST: "rst", Deny.ICMP: "icmp", Deny.OWN: "rst"}[what.deny]
    is_public = what.mapping is Mapping.NONE and what.filtering is Filtering.EIF
    # A firewall in front of a routed host never answers from its own stack: the packet is not for the box.
    unsolicited = "connected" if is_public else ("timeout" if cone else refusal)
    neighbour = "-"
    if what.shared:
        neighbour = "connected" if what.hairpin or what.one_lan else refusal
    return Facts(
        "EIM" if independent else "APDM",
        "yes" if what.port_kept else "no",
        what.filtering.value,
        unsolicited,
        "blocked" if what.udp_blocked else "works",
        neighbour,
    )


class Prober:
    """The sockets of one verification; closed by RST afterwards so that nothing lingers."""

    def __init__(self, lab: Lab, what: Behaviour) -> None:
        self.lab = lab
        self.family = socket.AF_INET6 if what.ipv6_only else socket.AF_INET
        self.observers = RELAY6 if what.ipv6_only else RELAY4
        self._open: list[socket.socket] = []

    def close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def keep(self, sock: socket.socket) -> socket.socket:
        self._open.append(sock)
        return sock

    def tcp(self, host: str, address: str, port: int) -> socket.socket:
        sock = self.keep(self.lab.socket(host, self.family))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        sock.settimeout(PROBE_SECONDS)
        return sock

    def listener(self, host: str, address: str, port: int) -> socket.socket:
        sock = self.tcp(host, address, port)
        sock.listen(16)
        return sock

    def try_connect(self, host: str, source: str, target: tuple[str, int]) -> str:
        """`connected`, `rst`, `icmp` or `timeout`."""
        try:
            self.tcp(host, source, 0).connect(target)
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return _ANSWERS.get(error.errno or 0, errno.errorcode.get(error.errno or 0, "error"))
        return "connected"

    def observed(
        self, side: str, source: tuple[str, int], target: tuple[str, int], observer: socket.socket
    ) -> tuple[str, int]:
        """The endpoint an observer sees for a connection from `source`. The connection stays open."""
        self.tcp(side, *source).connect(target)
        accepted, seen = observer.accept()
        self.keep(accepted)
        return (seen[0], seen[1])

    def udp_echo(self, side: str, source: str, target: tuple[str, int]) -> str:
        """`works` if a datagram comes back from the relay."""
        echo = self.keep(self.lab.socket("relay", self.family, socket.SOCK_DGRAM))
        echo.bind(target)
        inside = self.keep(self.lab.socket(side, self.family, socket.SOCK_DGRAM))
        inside.bind((source, 0))
        inside.sendto(b"ping", target)
        if not select.select([echo], [], [], PROBE_SECONDS)[0]:
            return "blocked"
        data, back = echo.recvfrom(PROBE_REPLY_BYTES)
        echo.sendto(data, back)
        return "works" if select.select([inside], [], [], PROBE_SECONDS)[0] else "blocked"


@contextlib.contextmanager
def _prober(lab: Lab, what: Behaviour) -> Iterator[Prober]:
    prober = Prober(lab, what)
    try:
        yield prober
    finally:
        prober.close()


def _mapping(points: Sequence[tuple[str, int]]) -> str:
    if len(set(points)) == 1:
        return "EIM"
    return "ADM" if points[0] == points[1] else "APDM"


def measure(lab: Lab, what: Behaviour, side: str = "a") -> Facts:
    """Probe one side of a running lab. Raises OSError if even plain outgoing connections fail."""
    host = lab.hosts[side]
    inside = host.address6 if what.ipv6_only else host.address
    public = inside if what.routed else host.public
    assert inside is not None
    assert public is not None
    with _prober(lab, what) as probe:
        first, second = probe.observers
        near, far = _OBSERVER_PORTS
        listeners = {
            (address, port): probe.listener("relay", address, port)
            for address, port in ((first, near), (first, far), (second, near))
        }
        probe.listener(side, inside, _INSIDE_PORT)
        unsolicited = probe.try_connect("relay", first, (public, _INSIDE_PORT))
        points = [probe.observed(side, (inside, _INSIDE_PORT), target, sock) for target, sock in listeners.items()]
        stranger = "2b00:11::1" if what.ipv6_only else "11.0.0.1"
        filtering = Filtering.APDF
        if probe.try_connect("router", stranger, points[0]) == "connected":
            filtering = Filtering.EIF
        elif probe.try_connect("relay", first, points[0]) == "connected":
            filtering = Filtering.ADF
        neighbour = "-"
        if what.shared:
            target = (inside, _INSIDE_PORT) if what.one_lan else points[0]
            other = "b" if side == "a" else "a"
            neighbour = probe.try_connect(other, lab.hosts[other].address or "", target)
        return Facts(
            _mapping(points),
            "yes" if {port for _, port in points} == {_INSIDE_PORT} else "no",
            filtering.value,
            unsolicited,
            probe.udp_echo(side, inside, (first, _ECHO_PORT)),
            neighbour,
        )


def verify_one(name: str) -> Row:
    """Build a lab with `name` on side a, measure it, tear it down."""
    started = time.monotonic()
    what = BEHAVIOURS[name]
    with Lab(name, name if what.shared else "public") as lab:
        seen, seen_udp = measure(lab, what), measure_udp(lab, what)
    seconds = round(time.monotonic() - started, 2)
    return Row(name, expected(what), seen, expected_udp(what), seen_udp, seconds)


def verify(names: Sequence[str], progress: Callable[[Row], None] | None = None) -> list[Row]:
    """Verify several behaviours side by side, each in a lab of its own; rows come back in the given order."""
    rows: dict[str, Row] = {}
    with concurrent.futures.ThreadPoolExecutor(VERIFY_WORKERS) as pool:
        waiting = [pool.submit(verify_one, name) for name in names]
        for done in concurrent.futures.as_completed(waiting):
            row = done.result()
            rows[row.behaviour] = row
            if progress is not None:
                progress(row)
    return [rows[name] for name in names]
