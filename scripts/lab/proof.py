"""Proof that a connection is direct: the kernel's sockets on both hosts, matched across the NATs.

Reads the lab, believes no program. The other halves of the proof (still relay counters, survival of the
relay's death) are judged by the scenario from counters taken here.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.lab import Lab
from lab.observe import Endpoint, Flow, TcpSocket
from lab.topology import RELAY4, RELAY6

_RELAY = frozenset((*RELAY4, *RELAY6))


@dataclass(frozen=True, slots=True)
class End:
    """One host's view of the direct connection; `external` is its local endpoint after all its NATs."""

    local: Endpoint
    remote: Endpoint
    external: Endpoint

    def as_json(self) -> dict[str, str]:
        return {"local": str(self.local), "remote": str(self.remote), "external": str(self.external)}


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of one TCP connection between the hosts."""

    a: End
    b: End

    def as_json(self) -> dict[str, object]:
        return {"a": self.a.as_json(), "b": self.b.as_json(), "matching": True}


def _translate(endpoint: Endpoint, remote: Endpoint, flows: list[Flow]) -> Endpoint:
    """What one box makes of an inside endpoint that talks to `remote`, whichever side opened the flow."""
    for flow in flows:
        if flow.protocol != "tcp":
            continue
        if flow.source == endpoint and flow.target == remote:
            return flow.reply_target
        if flow.reply_source == endpoint and flow.reply_target == remote:
            return flow.target
    return endpoint


def external(lab: Lab, side: str, sock: TcpSocket) -> Endpoint:
    """The local endpoint of a socket as the far side sees it, by the connection tables of the side's boxes."""
    seen = sock.local
    for box in lab.boxes(side):
        seen = _translate(seen, sock.remote, lab.conntrack(box))
    return seen


def direct_pairs(lab: Lab) -> list[Pair]:
    """Every established TCP connection between the two hosts that does not involve the relay."""
    ends: dict[str, list[End]] = {}
    for side in ("a", "b"):
        ends[side] = [
            End(sock.local, sock.remote, external(lab, side, sock))
            for sock in lab.sockets(side)
            if sock.remote.host not in _RELAY and not sock.remote.host.startswith(("127.", "::1"))
        ]
    return [
        Pair(one, other)
        for one in ends["a"]
        for other in ends["b"]
        if one.external == other.remote and other.external == one.remote
    ]


def traffic(lab: Lab) -> dict[str, int]:
    """Bytes so far: `relay` (between the hosts and the relay, both ways) and `direct` (between the hosts)."""
    counts = lab.counters()
    return {
        "relay": sum(counts[f"{side}.{way}_relay"].bytes for side in ("a", "b") for way in ("from", "to")),
        "direct": sum(counts[f"{side}.from_peer"].bytes for side in ("a", "b")),
    }
