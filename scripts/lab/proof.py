"""Proof that a connection is direct: the kernel's sockets on both hosts, matched across the NATs, and their bytes.

This module reads the lab and believes no program. Two sockets that match are not enough: both may be established
while nothing that either side waits for can arrive. A connection counts once payload has arrived at both of its ends.
The other halves of the proof (still relay counters, survival of the relay's death) are judged by the scenario from
counters taken here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.lab import Lab
from lab.observe import Endpoint, Flow, TcpSocket
from lab.topology import RELAY4, RELAY6

_RELAY = frozenset((*RELAY4, *RELAY6))


@dataclass(frozen=True, slots=True)
class End:
    """One host's view of the direct connection; `external` is its local endpoint after all its NATs.

    `received` is the socket's own counter of payload bytes (`lab.observe.TcpSocket`).
    """

    local: Endpoint
    remote: Endpoint
    external: Endpoint
    received: int

    def as_json(self) -> dict[str, object]:
        return {
            "local": str(self.local),
            "remote": str(self.remote),
            "external": str(self.external),
            "received_bytes": self.received,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of one TCP connection between the hosts."""

    a: End
    b: End

    @property
    def tuples(self) -> tuple[Endpoint, ...]:
        """What identifies the connection: both ends' local and remote endpoints."""
        return (self.a.local, self.a.remote, self.b.local, self.b.remote)

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


def established_pairs(lab: Lab) -> list[Pair]:
    """Every established TCP connection between the two hosts that does not involve the relay, whatever it carried."""
    ends: dict[str, list[End]] = {}
    for side in ("a", "b"):
        ends[side] = [
            End(sock.local, sock.remote, external(lab, side, sock), sock.received)
            for sock in lab.sockets(side)
            if sock.remote.host not in _RELAY and not sock.remote.host.startswith(("127.", "::1"))
        ]
    return [
        Pair(one, other)
        for one in ends["a"]
        for other in ends["b"]
        if one.external == other.remote and other.external == one.remote
    ]


def direct_pairs(lab: Lab, since: Sequence[Pair] = ()) -> list[Pair]:
    """The connections between the two hosts that carried payload both ways, by the counters of both hosts' sockets.

    `since`: what `established_pairs` gave earlier; the counters of these have to have risen since then.
    """
    earlier = {pair.tuples: (pair.a.received, pair.b.received) for pair in since}
    found = []
    for pair in established_pairs(lab):
        a, b = earlier.get(pair.tuples, (0, 0))
        if pair.a.received > a and pair.b.received > b:
            found.append(pair)
    return found


def traffic(lab: Lab) -> dict[str, int]:
    """Bytes so far: `relay` (between the hosts and the relay, both ways) and `direct` (between the hosts)."""
    counts = lab.counters()
    return {
        "relay": sum(counts[f"{side}.{way}_relay"].bytes for side in ("a", "b") for way in ("from", "to")),
        "direct": sum(counts[f"{side}.from_peer"].bytes for side in ("a", "b")),
    }
