"""Proof that a connection is direct: what the kernel has on both hosts, matched across the NATs, and its bytes.

This module reads the lab and believes no program. Two ends that match are not enough: both may be established
while nothing that either side waits for can arrive. A connection counts once payload has arrived at both of its ends.
TCP shows in the hosts' socket tables. One UDP socket has many peers there and names none, so QUIC shows in the hosts'
packet counters: one for each pair of endpoints, which counts only datagrams of a finished handshake.
The other halves of the proof (still relay counters, survival of the relay's death) are judged by the scenario from
counters taken here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.lab import Lab
from lab.observe import Endpoint, Flow
from lab.topology import RELAY4, RELAY6, SIDES

_RELAY = frozenset((*RELAY4, *RELAY6))


@dataclass(frozen=True, slots=True)
class End:
    """One host's view of the direct connection; `external` is its local endpoint after all its NATs.

    `received` counts bytes: of payload by a TCP socket's own counter (`lab.observe.TcpSocket`), of packets by the
    host's packet counter for QUIC (`lab.observe.udp_heard`).
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
    """Both ends of one connection between the hosts; `protocol` is `tcp` or `udp`."""

    protocol: str
    a: End
    b: End

    @property
    def tuples(self) -> tuple[str | Endpoint, ...]:
        """What identifies the connection: its protocol, and both ends' local and remote endpoints."""
        return (self.protocol, self.a.local, self.a.remote, self.b.local, self.b.remote)

    def as_json(self) -> dict[str, object]:
        return {"protocol": self.protocol, "a": self.a.as_json(), "b": self.b.as_json(), "matching": True}


def _translate(endpoint: Endpoint, remote: Endpoint, flows: Sequence[Flow]) -> Endpoint:
    """What one box makes of an inside endpoint that talks to `remote`, whichever side opened the flow."""
    for flow in flows:
        if flow.source == endpoint and flow.target == remote:
            return flow.reply_target
        if flow.reply_source == endpoint and flow.reply_target == remote:
            return flow.target
    return endpoint


def _seen(lab: Lab, side: str) -> Iterator[tuple[str, Endpoint, Endpoint, int]]:
    """(protocol, local endpoint, remote endpoint, bytes received) of whatever a host talks with, the relay aside."""
    for sock in lab.sockets(side):
        if sock.remote.host not in _RELAY and not sock.remote.host.startswith(("127.", "::1")):
            yield "tcp", sock.local, sock.remote, sock.received
    for (remote, local), received in lab.udp_heard(side).items():
        yield "udp", local, remote, received


def _ends(lab: Lab, side: str) -> list[tuple[str, End]]:
    """(protocol, end) of each, with its local endpoint as the far side sees it by the tables of the side's boxes."""
    tables = [lab.conntrack(box) for box in lab.boxes(side)]
    found = []
    for protocol, local, remote, received in _seen(lab, side):
        external = local
        for table in tables:
            external = _translate(external, remote, [flow for flow in table if flow.protocol == protocol])
        found.append((protocol, End(local, remote, external, received)))
    return found


def established_pairs(lab: Lab) -> list[Pair]:
    """Every established connection between the two hosts that does not involve the relay, whatever it carried."""
    a, b = (_ends(lab, side) for side in SIDES)
    return [
        Pair(protocol, one, other)
        for protocol, one in a
        for another, other in b
        if protocol == another and one.external == other.remote and other.external == one.remote
    ]


def direct_pairs(lab: Lab, since: Sequence[Pair] = ()) -> list[Pair]:
    """The connections between the two hosts that carried something both ways, by the counters of both hosts.

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
